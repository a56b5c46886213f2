"""An answer in parts: whoever asks reads each line as soon as it is written."""

import time

import flask
import functions_framework


@functions_framework.http
def streaming(request):
    """Sends five lines, one every 200 ms."""

    def lines():
        for number in range(1, 6):
            yield f"line {number}\n"
            time.sleep(0.2)

    return flask.Response(lines(), mimetype="text/plain")
