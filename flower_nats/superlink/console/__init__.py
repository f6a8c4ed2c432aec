"""What the console asks, and the history of exchanges that it shows."""
