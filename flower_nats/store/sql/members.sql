-- role: The role of an account in a federation.
SELECT role FROM federation_member
WHERE federation = %(federation)s AND account_id = %(account_id)s;

-- of_run: The federation and the owner of a run, and an account's role there.
SELECT run.federation, run.account_id, federation_member.role
FROM run
LEFT JOIN federation_member
    ON federation_member.federation = run.federation
    AND federation_member.account_id = %(account_id)s
WHERE run.run_id = %(run_id)s;

-- list: The members of a federation, in the order in which they joined.
SELECT account_id, account_name, role FROM federation_member
WHERE federation = %(federation)s
ORDER BY joined_at, account_name;

-- by_name: A member of a federation by name, in any case of letters.
SELECT account_id, account_name, role FROM federation_member
WHERE federation = %(federation)s AND lower(account_name) = lower(%(account_name)s);

-- federations: The active federations in which an account has one of these roles.
SELECT federation FROM federation_member
JOIN federation ON federation.name = federation_member.federation
WHERE account_id = %(account_id)s
    AND role = ANY (%(roles)s::text[])
    AND archived_at IS NULL
ORDER BY created_at, federation;

-- add: Add an account; none if it is a member already.
INSERT INTO federation_member (federation, account_id, account_name, role)
VALUES (%(federation)s, %(account_id)s, %(account_name)s, %(role)s)
ON CONFLICT DO NOTHING
RETURNING account_id;

-- set_role: Change what a member may do.
UPDATE federation_member SET role = %(role)s
WHERE federation = %(federation)s AND account_id = %(account_id)s;

-- remove: Remove an account and its nodes.
WITH nodes AS (
    DELETE FROM federation_node
    USING node
    WHERE federation_node.federation = %(federation)s
        AND node.node_id = federation_node.node_id
        AND node.owner_id = %(account_id)s
)
DELETE FROM federation_member
WHERE federation = %(federation)s AND account_id = %(account_id)s;

-- add_node: Add a node to a federation; none if it is in it already.
INSERT INTO federation_node (federation, node_id)
SELECT %(federation)s, %(node_id)s
WHERE NOT EXISTS (
    SELECT FROM node_membership
    WHERE federation = %(federation)s AND node_id = %(node_id)s
)
ON CONFLICT DO NOTHING
RETURNING node_id;

-- remove_node: Remove a node from a federation; none if it was not in it.
DELETE FROM federation_node
WHERE federation = %(federation)s AND node_id = %(node_id)s
RETURNING node_id;

-- has_node: Whether a node is in a federation.
SELECT 1 FROM node_membership WHERE federation = %(federation)s AND node_id = %(node_id)s;
