-- A repeated claim is recognised by its token, which is the same at every try.

ALTER TABLE task DROP COLUMN claim_request;
