"""Accounts of callers, and what a call may do: logins, identity, rights, the audit trail."""
