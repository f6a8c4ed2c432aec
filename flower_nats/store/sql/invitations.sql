-- create: Invite an account into a federation; none if it has a pending invitation.
INSERT INTO invitation (federation, inviter_id, inviter_name, invitee_id, invitee_name)
VALUES (
    %(federation)s, %(inviter_id)s, %(inviter_name)s, %(invitee_id)s, %(invitee_name)s
)
ON CONFLICT (federation, invitee_id) WHERE status = 'pending' DO NOTHING
RETURNING invitation_id;

-- created_by: The invitations that an account has sent, oldest first.
SELECT * FROM invitation WHERE inviter_id = %(account_id)s ORDER BY created_at, invitation_id;

-- received_by: The invitations that an account has received, oldest first.
SELECT * FROM invitation WHERE invitee_id = %(account_id)s ORDER BY created_at, invitation_id;

-- close: Store the answer to a pending invitation; none if there is none.
UPDATE invitation SET status = %(status)s, changed_at = now()
WHERE federation = %(federation)s AND invitee_id = %(invitee_id)s AND status = 'pending'
RETURNING invitation_id;

-- revoke: Revoke a pending invitation, by the name of the invited account; none if there is none.
UPDATE invitation SET status = 'revoked', changed_at = now()
WHERE federation = %(federation)s AND lower(invitee_name) = lower(%(invitee_name)s)
    AND status = 'pending'
RETURNING invitation_id;
