"""Comparisons with other libraries; each needs the extra that it is compared with: pip install '.[torch]'."""
