"""nats-server and PostgreSQL as child processes, for a runtime on one machine.

Both are the real servers, from PyPI wheels or from PATH, each on its own data directory. Data that
they acknowledge is on disk. They end with the process that started them, however it ends.
"""
