-- A claim is known again by its token, which is the same at every try.

ALTER TABLE task DROP COLUMN claim_request;
