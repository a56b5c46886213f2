"""The same as hello_http, in a project of uv."""

import functions_framework


@functions_framework.http
def hello_http(request):
    """Answers "Hello NAME!" with the name from the JSON body, else from the query, else "World"."""
    body = request.get_json(silent=True)
    if isinstance(body, dict) and "name" in body:
        name = body["name"]
    else:
        name = request.args.get("name", "World")
    return f"Hello {name}!"
