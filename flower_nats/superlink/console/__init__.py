"""The answers for the console, and the history of exchanges that it shows."""
