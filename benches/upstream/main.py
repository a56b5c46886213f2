"""Becomes nginx: the same upstream that the bench puts behind the reverse proxy it is compared with."""

import os
from pathlib import Path

config = Path("/tmp/nginx.conf")
config.write_text(f"""
daemon off; worker_processes 1; pid /tmp/nginx.pid; error_log stderr crit;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 1000000000;
  client_body_temp_path /tmp/a; proxy_temp_path /tmp/b; fastcgi_temp_path /tmp/c; uwsgi_temp_path /tmp/d; scgi_temp_path /tmp/e;
  server {{ listen {os.environ["PORT"]}; location / {{ return 200 "hello"; }} }}
}}
""")
os.execv("/usr/sbin/nginx", ["nginx", "-c", str(config), "-p", "/tmp", "-e", "stderr"])
