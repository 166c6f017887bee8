"""A repository of the Hugging Face hub, to which a folder is pushed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from contextjax.types import UserError, listed


class Repository:
    """A repository of the hub, or of the server that the environment variable HF_ENDPOINT names.

    The token is the hub client's own: HF_TOKEN, or what `hf auth login` has kept.
    """

    def __init__(self, name: str, *, private: bool = False):
        """Checks the name, the token and the server, before anything is computed.

        Args:
          name: "owner/name".
          private: makes the repository private where it is new.

        Raises:
          UserError: the name is invalid, there is no token, or the server is unavailable or refuses the token.
        """
        from huggingface_hub import HfApi, get_token
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.utils import validate_repo_id

        try:
            validate_repo_id(name)
            owner, _, rest = name.partition("/")
            if not (owner and rest):
                raise HFValidationError("it has no owner")
        except HFValidationError as error:
            raise UserError(
                f"--push={name} is no name of a repository ({listed([str(error).rstrip('.')])}); expected owner/name."
            ) from error
        self.name, self.private = name, private
        self.api = HfApi(endpoint=os.environ.get("HF_ENDPOINT", "").rstrip("/") or None)
        if not get_token():
            raise UserError(
                f"There is no token for {self.api.endpoint}; set HF_TOKEN to one that may write, or run "
                "`hf auth login`."
            )
        self._call(self.api.whoami)

    def push(self, folder: Path) -> None:
        """Makes the repository where there is none, uploads a folder as one commit, and prints the commit's address.

        Raises:
          UserError: the repository can't be made or written to. The folder stays as it is.
        """
        kept = f" {folder} is written; once that is mended, `hf upload {self.name} {folder}` pushes it."
        self._call(self.api.create_repo, self.name, private=self.private or None, exist_ok=True, kept=kept)
        message = "Weights, tokenizer and model card, written by contextjax"
        commit = self._call(
            self.api.upload_folder, repo_id=self.name, folder_path=folder, commit_message=message, kept=kept
        )
        print(f"pushed {folder} to {self.api.endpoint}/{self.name}: {commit.commit_url}")

    def _call(self, method: Any, *arguments: Any, kept: str = "", **options: Any) -> Any:
        """Calls a method of the client. Raises a UserError with the reason of a failure, followed by `kept`."""
        try:
            return method(*arguments, **options)
        except Exception as error:  # the hub's client raises a dozen types of errors
            status = getattr(getattr(error, "response", None), "status_code", None)
            remedy = {
                401: "the token is refused: set HF_TOKEN to a valid one, or run `hf auth login`",
                403: f"the token may not write to {self.name}: take one that may, or another owner",
                404: f"the server knows no {self.name}: check the owner",
            }.get(status or 0)
            lines = str(getattr(error, "server_message", None) or error).strip().splitlines() or [type(error).__name__]
            reason = remedy or f"{listed(lines[:1])}: check the network and HF_ENDPOINT"
            raise UserError(f"{self.name} could not be pushed to {self.api.endpoint}; {reason}.{kept}") from error
