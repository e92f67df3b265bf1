"""An SMTP server for tests. Reads its settings as one line of JSON from standard input, and prints its port. Each accepted
mail becomes a line of JSON in the file `mails` before the client gets its answer."""

import asyncio
import email
import email.policy
import json
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult

settings = json.loads(sys.stdin.readline())
asked = set()


def login(server, session, envelope, mechanism, data):
    success = [data.login.decode(), data.password.decode()] == settings["login"]
    # The refusal repeats the password, as the text of a careless server may do.
    refusal = None if success else f"535 5.7.8 not {data.password.decode()}"
    return AuthResult(success=success, handled=False, auth_data=data, message=refusal)


def as_json(server, session, envelope):
    mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
    part = {kind: mail.get_body((kind,)) for kind in ("plain", "html")}
    return {
        "from": envelope.mail_from,
        "to": envelope.rcpt_tos,
        "hello": session.host_name,
        "encrypted": server.transport.get_extra_info("ssl_object") is not None,
        "login": session.auth_data.login.decode() if session.authenticated else None,
        "headers": [[name, str(value)] for name, value in mail.items()],
        "type": mail.get_content_type(),
        "text": part["plain"] and part["plain"].get_content(),
        "html": part["html"] and part["html"].get_content(),
        "raw": envelope.content.decode("latin-1"),
    }


class Handler:
    async def handle_RCPT(self, server, session, envelope, address, options):
        if address in settings["refuse"]:
            return "550 5.1.1 no such mailbox"
        if address in settings["greylist"] and address not in asked:
            asked.add(address)
            return "451 4.7.1 greylisted, try again"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        with open("mails", "a") as mails:
            mails.write(json.dumps(as_json(server, session, envelope)) + "\n")
        return "250 OK"

    async def handle_QUIT(self, server, session, envelope):
        if settings["silent_quit"]:
            await asyncio.Event().wait()
        return "221 Bye"


def context():
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    made.load_cert_chain("server.crt", "server.key")
    return made


async def main():
    tls = settings["tls"]
    options = {"hostname": "127.0.0.1"}
    if tls == "starttls":
        options |= {"tls_context": context(), "require_starttls": True}
    if settings["login"]:
        options |= {"authenticator": login, "auth_required": True, "auth_require_tls": tls == "starttls"}
    loop = asyncio.get_running_loop()
    made = lambda: SMTP(Handler(), loop=loop, **options)
    server = await loop.create_server(made, "127.0.0.1", 0, ssl=context() if tls == "tls" else None)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
