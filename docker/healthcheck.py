"""Asks the service in this container whether it answers: `python healthcheck.py [PATH [PORT]]`; exit code 0 if it says 200, else 1.

http.client, and not urllib.request: a proxy of the environment must not answer for the service.
"""

import http.client
import os
import sys


def main(path: str = "/health/live", port: str = "") -> int:
    connection = http.client.HTTPConnection("127.0.0.1", int(port or os.environ.get("HOOKLINE_PORT") or 3000), timeout=5)
    try:
        connection.request("GET", path)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        print(f"{path}: {error}")
        return 1
    finally:
        connection.close()
    print(f"{path}: {status}")
    return 0 if status == 200 else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
