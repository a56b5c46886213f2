"""A person with a browser that knows nothing of the shell's proxy: sets a password by the one-time link, then signs gcloud in."""

import html.parser
import http.cookiejar
import re
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request

PASSWORD = "correct horse battery staple"
browser = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))


class Form(html.parser.HTMLParser):
    """The first form of a page: where it goes and what it holds."""

    def __init__(self, page):
        super().__init__()
        self.action, self.fields = None, {}
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "form" and self.action is None:
            self.action = attributes.get("action", "")
        if tag == "input" and "name" in attributes:
            self.fields[attributes["name"]] = attributes.get("value") or ""


def see(url, data=None):
    origin = "{0.scheme}://{0.netloc}".format(urllib.parse.urlsplit(url))
    request = urllib.request.Request(url, data and urllib.parse.urlencode(data).encode(), {"Origin": origin} if data else {})
    try:
        answer = browser.open(request, timeout=60)
    except urllib.error.HTTPError as error:
        answer = error
    return answer.status, answer.read().decode()


def fill(url, **values):
    _, page = see(url)
    form = Form(page)
    return see(urllib.parse.urljoin(url, form.action), {**form.fields, **values})


status, page = fill(sys.argv[1], password=PASSWORD, again=PASSWORD)
assert status == 200 and "is set" in page, page
status, page = fill(sys.argv[1], password="another password", again="another password")
assert status == 403, f"the link is good once: {status} {page}"

gcloud = subprocess.Popen(["gcloud", "auth", "login", "--no-launch-browser", "--quiet"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
told = ""
while not (url := re.search(r"https?://\S+", told)):
    line = gcloud.stdout.readline()
    assert line, told
    told += line
status, page = fill(url[0], email="developer@tanebi.local", password="not it")
assert status == 403, f"a wrong password: {status} {page}"
status, page = fill(url[0], email="developer@tanebi.local", password=PASSWORD)
assert status == 200, page
code = re.search(r"4/[\w-]+", page)[0]
told, _ = gcloud.communicate(f"{code}\n", timeout=100)
assert "You are now logged in as [developer@tanebi.local]" in told, told
print("signed in")
