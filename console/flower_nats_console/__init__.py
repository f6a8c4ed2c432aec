"""The console: web pages for the people who run federations."""
