"""Text: tokenizers and chat templates. No torch in here."""
