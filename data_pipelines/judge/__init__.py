"""A vision-language model as judge: questions about candidates, and the scores that its answers give them."""
