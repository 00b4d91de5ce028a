"""Documents that a served model may look into: passages, their index, how they are found and quoted."""
