"""Checks webhooks with the library of Standard Webhooks. Reads the secret and the deliveries as JSON from standard input."""

import json
import sys

from standardwebhooks import Webhook, WebhookVerificationError


def accepts(secret, headers, body):
    try:
        Webhook(secret).verify(body, headers)
    except WebhookVerificationError:
        return False
    return True


def forgeries(secret, headers, body):
    time = str(int(headers["webhook-timestamp"]) + 1)
    yield secret, headers, body.replace("alert.", "alarm.")
    yield secret, headers | {"webhook-id": "another"}, body
    yield secret, headers | {"webhook-timestamp": time}, body
    yield "whsec_" + "A" * 32, headers, body


given = json.load(sys.stdin)
genuine, refused = 0, 0
for delivery in given["deliveries"]:
    sent = given["secret"], delivery["headers"], delivery["body"]
    genuine += accepts(*sent)
    refused += sum(not accepts(*forgery) for forgery in forgeries(*sent))
print(f"{genuine} deliveries are genuine, {refused} forgeries are refused")
