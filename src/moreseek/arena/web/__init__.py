"""The pages and the JSON that browsers talk to."""
