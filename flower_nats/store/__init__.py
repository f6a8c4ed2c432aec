"""PostgreSQL: pool, named SQL, migrations, one repository per noun."""
