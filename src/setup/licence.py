"""What the DINOv3 licence asks of whoever uses the weights or Meta's code, and the user's yes to it."""

ADDRESS = "https://ai.meta.com/resources/models-and-libraries/dinov3-license/"

SUMMARY = f"""\
DINOv3's weights and Meta's code are under the DINOv3 License, wherever they are downloaded:
  {ADDRESS}
In short, and not in place of reading it:
  - use is free of charge, and commercial use is allowed;
  - who passes them on, or something derived from them such as a fine-tuned detector, does so under the same
    licence and with a copy of it;
  - a publication says that DINOv3 was used;
  - military, nuclear, espionage and weapons uses are excluded, trade controls apply, and nothing is to be
    reverse engineered;
  - suing Meta over them ends the licence; then they are to be deleted."""


def require_acceptance(accepted: bool) -> None:
    """Stop unless the user has accepted the licence.

    Raises:
        ValueError: Not accepted; the message is the summary.
    """
    if not accepted:
        raise ValueError(
            f"the licence has to be accepted first.\n{SUMMARY}\n"
            "Nothing was downloaded. Who accepts it adds --accept-license to the command."
        )
