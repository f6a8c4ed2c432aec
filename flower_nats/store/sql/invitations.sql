-- create: Ask an account into a federation; nothing comes back if it was asked, and has not answered.
INSERT INTO invitation (federation, inviter_id, inviter_name, invitee_id, invitee_name)
VALUES (
    %(federation)s, %(inviter_id)s, %(inviter_name)s, %(invitee_id)s, %(invitee_name)s
)
ON CONFLICT (federation, invitee_id) WHERE status = 'pending' DO NOTHING
RETURNING invitation_id;

-- created_by: What an account has asked, oldest first.
SELECT * FROM invitation WHERE inviter_id = %(account_id)s ORDER BY created_at, invitation_id;

-- received_by: What an account was asked, oldest first.
SELECT * FROM invitation WHERE invitee_id = %(account_id)s ORDER BY created_at, invitation_id;

-- close: Note what has become of a pending invitation; nothing comes back if there is none.
UPDATE invitation SET status = %(status)s, changed_at = now()
WHERE federation = %(federation)s AND invitee_id = %(invitee_id)s AND status = 'pending'
RETURNING invitation_id;

-- revoke: Take a pending invitation back, by the name of who was asked; nothing if there is none.
UPDATE invitation SET status = 'revoked', changed_at = now()
WHERE federation = %(federation)s AND lower(invitee_name) = lower(%(invitee_name)s)
    AND status = 'pending'
RETURNING invitation_id;
