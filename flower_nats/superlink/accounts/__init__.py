"""Who is calling, and what the call may do: logins, identity, rights, the audit trail."""
