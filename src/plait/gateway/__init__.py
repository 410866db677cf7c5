"""The HTTP application: the route table, its guards, and the routes that belong to no dialect."""
