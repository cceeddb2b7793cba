"""Logging in with tokens: scopes, expiry, renewal, keys that change. The token is the password."""

import json
import threading
import time

import pika
import pytest
from broker import Broker
from cryptography.hazmat.primitives import serialization
from identity import Issuer, RESOURCE_SERVER, Service, manage
from pika.exceptions import (
    AMQPConnectionError,
    ChannelClosedByBroker,
    ConnectionClosedByBroker,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
)
from support import wait_until

ALL = ("read:*/*", "write:*/*", "configure:*/*")


@pytest.fixture(scope="module")
def issuer():
    issuer = Issuer()
    issuer.add("first")
    return issuer


def web_server(issuer):
    """That of an issuer which is asked where its keys are."""

    def answer(path, _parameters):
        if path == "/keys":
            return json.dumps(issuer.jwks())
        if path == "/.well-known/openid-configuration":
            return json.dumps({"issuer": service.url, "jwks_uri": f"{service.url}/keys"})
        return 404, ""

    service = Service(answer)
    return service


@pytest.fixture(scope="module")
def keys(issuer):
    """The issuer's web server; `/keys` gives keys."""
    service = web_server(issuer)
    yield service
    service.close()


def start(**settings):
    """A broker that takes tokens after its own users' passwords."""
    settings = {"auth.backends": "internal,oauth2", "oauth2.resource_server_id": RESOURCE_SERVER} | settings
    broker = Broker(*(f"--set={name}={value}" for name, value in settings.items()))
    broker.start()
    return broker


@pytest.fixture(scope="module")
def broker(keys):
    broker = start(**{"oauth2.jwks_uri": f"{keys.url}/keys"})
    yield broker
    broker.close()


def login(broker, token, user="", **settings):
    credentials = pika.PlainCredentials(user, token)
    parameters = pika.ConnectionParameters("127.0.0.1", broker.port, credentials=credentials, **settings)
    return pika.BlockingConnection(parameters)


def refused(broker, token):
    with pytest.raises(AMQPConnectionError) as error:
        login(broker, token)
    assert isinstance(error.value, ProbableAuthenticationError) or "ACCESS_REFUSED" in repr(error.value)


def test_a_token_logs_in_beside_passwords(broker, issuer):
    with login(broker, issuer.token(*ALL)) as connection:
        channel = connection.channel()
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.basic_publish("", queue, b"body", pika.BasicProperties(user_id="ann"))
        assert channel.basic_get(queue, auto_ack=True)[2] == b"body"
    with login(broker, "guest", "guest") as connection:
        assert connection.channel().is_open


def test_tokens_that_do_not_log_in(broker, issuer):
    token = issuer.token(*ALL)
    head, claims, signature = token.split(".")
    refused(broker, f"{head}.{claims}.{signature[:-8]}AAAAAAAA")
    refused(broker, issuer.token(*ALL, seconds=-1))
    refused(broker, issuer.token(*ALL, aud="somebody"))
    refused(broker, issuer.token(*ALL, nbf=time.time() + 3600))
    for text in (token, claims, signature):
        assert text not in broker.log()


def channel_error(connection, action):
    with pytest.raises(ChannelClosedByBroker) as error:
        action(connection.channel())
    return error.value.reply_code, error.value.reply_text


def test_scopes_are_enforced(broker, issuer):
    token = issuer.token("read:*/read*", "write:*/amq.default", "configure:*/{sub}-*", user="bob")
    with login(broker, token) as connection:
        channel = connection.channel()
        channel.queue_declare("bob-queue", auto_delete=True)
        channel.confirm_delivery()
        channel.basic_publish("", "bob-queue", b"")
        code, text = channel_error(connection, lambda channel: channel.queue_declare("ann-queue"))
        assert code == 403
        assert "configure access to queue 'ann-queue' in vhost '/' refused for user 'bob'" in text
        code, text = channel_error(connection, lambda channel: channel.basic_get("bob-queue"))
        assert (code, "read access to queue 'bob-queue'" in text) == (403, True)

        def publish(channel):
            channel.confirm_delivery()
            channel.basic_publish("amq.direct", "", b"")

        assert channel_error(connection, publish)[0] == 403
        connection.channel().queue_delete("bob-queue")


def test_vhosts_are_enforced(broker, issuer):
    with pytest.raises(ProbableAccessDeniedError) as error:
        login(broker, issuer.token("read:other/*", user="bob"))
    assert "(530)" in str(error.value) and "access to vhost '/' refused for user 'bob'" in str(error.value)


def test_topics_are_enforced(broker, issuer):
    token = issuer.token(*ALL, "write:*/amq.topic/news.{sub}.*", "read:*/amq.topic/news.*", user="bob")
    with login(broker, token) as connection:
        channel = connection.channel()
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(queue, "amq.topic", "news.#")
        channel.confirm_delivery()
        channel.basic_publish("amq.topic", "news.bob.x", b"")

        def publish(channel):
            channel.confirm_delivery()
            channel.basic_publish("amq.topic", "news.ann.x", b"")

        code, text = channel_error(connection, publish)
        assert code == 403
        assert "write access to topic 'news.ann.x' in exchange 'amq.topic' in vhost '/' refused" in text
        assert channel_error(connection, lambda one: one.queue_bind(queue, "amq.topic", "else"))[0] == 403


def test_expiry_closes_the_connection(broker, issuer):
    before = time.time()
    connection = login(broker, issuer.token(*ALL, seconds=2, exp=int(before) + 3))
    with pytest.raises(ConnectionClosedByBroker) as error:
        connection.process_data_events(time_limit=15)
    assert (error.value.reply_code, error.value.reply_text) == (320, "CONNECTION_FORCED - credential expired")
    assert int(before) + 3 <= time.time() < int(before) + 6


def test_a_new_token_renews(broker, issuer):
    """With another expiry, and other scopes."""
    expires = int(time.time()) + 3
    with login(broker, issuer.token(*ALL, exp=expires)) as connection:
        channel = connection.channel()
        channel.queue_declare("renewed", auto_delete=True)
        connection.update_secret(issuer.token("read:*/renewed"), "soon expired")
        while time.time() < expires + 1:
            connection.process_data_events(time_limit=0.2)
        assert channel.basic_get("renewed")[0] is None
        assert channel_error(connection, lambda one: one.queue_delete("renewed"))[0] == 403


def test_a_new_token_without_read_ends_consumers(broker, issuer):
    with login(broker, issuer.token(*ALL)) as connection:
        channel = connection.channel()
        ended = []
        channel.add_on_cancel_callback(lambda frame: ended.append(frame.method.consumer_tag))
        for name in ("kept", "lost"):
            channel.queue_declare(name, exclusive=True)
            channel.basic_consume(name, lambda *_: None, consumer_tag=name)
        connection.update_secret(issuer.token("read:*/kept", "write:*/*", "configure:*/*"), "")
        connection.process_data_events(time_limit=1)
        assert ended == ["lost"]
        assert channel.queue_declare("kept", passive=True).method.consumer_count == 1
        assert channel.queue_declare("lost", passive=True).method.consumer_count == 0


REFUSED = "New secret was refused by one of the backends"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"user": "eve"}, REFUSED),
        ({"seconds": -1}, REFUSED),
        ({"scope": f"{RESOURCE_SERVER}.read:other/*"}, "access to vhost '/' refused for user"),
    ],
)
def test_a_new_token_that_does_not_fit_closes(broker, issuer, change, text):
    connection = login(broker, issuer.token(*ALL))
    with pytest.raises(ConnectionClosedByBroker) as error:
        connection.update_secret(issuer.token(*ALL, **change), "")
        connection.process_data_events(time_limit=10)
    assert error.value.reply_code == 530
    assert text in error.value.reply_text


def test_keys_are_fetched_when_they_change(broker, issuer, keys):
    issuer.add("second", "ES256")
    # A fetch that is less than a second old is not repeated.
    time.sleep(1.1)
    with login(broker, issuer.token(*ALL, kid="second")) as connection:
        assert connection.channel().is_open
    fetched = keys.asked("/keys")
    stranger = Issuer()
    stranger.add("stranger")
    logins = [threading.Thread(target=refused, args=(broker, stranger.token(*ALL, kid="stranger"))) for _ in range(4)]
    for one in logins:
        one.start()
    for one in logins:
        one.join()
    assert keys.asked("/keys") - fetched <= 2, "each login has fetched keys"


def test_keys_that_are_gone_verify_nothing(keys, issuer):
    issuer.add("old")
    broker = start(**{"oauth2.jwks_uri": f"{keys.url}/keys", "oauth2.refresh_interval": "1s"})
    token = issuer.token(*ALL, kid="old")
    login(broker, token).close()
    del issuer.keys["old"]

    def is_refused():
        try:
            login(broker, token).close()
        except AMQPConnectionError:
            return True

    wait_until(is_refused, "the end of the old key")
    broker.close()


def test_the_issuer_says_where_its_keys_are(keys, issuer):
    broker = start(**{"oauth2.issuers": keys.url})
    login(broker, issuer.token(*ALL, iss=keys.url)).close()
    refused(broker, issuer.token(*ALL, iss="http://somebody"))
    broker.close()


def test_keys_of_several_issuers_are_kept_apart():
    """Both have a key called first; one alone has a key called own."""
    issuers = [Issuer(), Issuer()]
    for one in issuers:
        one.add("first")
    issuers[0].add("own", "ES256")
    servers = [web_server(one) for one in issuers]
    urls = [server.url for server in servers]
    broker = start(**{"oauth2.issuers": ",".join(urls)})
    for one, url in zip(issuers, urls):
        login(broker, one.token(*ALL, iss=url)).close()
    refused(broker, issuers[0].token(*ALL, iss=urls[1]))
    assert f'its signature is wrong for its issuer "{urls[1]}"' in broker.log().replace("\\", "")
    refused(broker, issuers[0].token(*ALL))
    login(broker, issuers[0].token(*ALL, kid="own", iss=urls[0])).close()

    # A key that is unknown is looked for with the issuer that the token names, not more often than once a second.
    time.sleep(1.1)
    asked = [server.asked("/keys") for server in servers]
    for _ in range(3):
        refused(broker, issuers[0].token(*ALL, kid="own", iss=urls[1]))
    assert f'its key "own" is unknown for its issuer "{urls[1]}"' in broker.log().replace("\\", "")
    assert servers[0].asked("/keys") == asked[0], "another issuer was asked"
    assert 1 <= servers[1].asked("/keys") - asked[1] <= 3
    # The pause is each issuer's own.
    issuers[0].add("new")
    login(broker, issuers[0].token(*ALL, kid="new", iss=urls[0])).close()
    assert servers[0].asked("/keys") == asked[0] + 1

    # One that is down harms its own tokens alone, and those only when it has other keys.
    servers[1].close()
    issuers[1].add("late")
    time.sleep(1.1)
    late = issuers[1].token(*ALL, kid="late", iss=urls[1])
    refused(broker, late)
    # It may be a good token: a management API that said 401 would make its clients forget it.
    assert manage(broker, f"Bearer {late}")[0] == 503
    assert manage(broker, f"Bearer {issuers[1].token(*ALL, kid='late', iss=urls[0])}")[0] == 401
    for one, url in zip(issuers, urls):
        login(broker, one.token(*ALL, iss=url)).close()
    broker.close()
    servers[0].close()


def test_keys_without_issuer_are_for_all(keys, issuer):
    """An address of keys is that of every issuer in the list."""
    broker = start(**{"oauth2.jwks_uri": f"{keys.url}/keys", "oauth2.issuers": "https://one,https://other"})
    for iss in ("https://one", "https://other/"):
        login(broker, issuer.token(*ALL, iss=iss)).close()
    refused(broker, issuer.token(*ALL, iss="https://somebody"))
    broker.close()


def test_the_audience_chooses_the_resource_server():
    """Three of them: the first; `prod` with another issuer, prefix, user name, roles; `test` as the first."""
    issuers = [Issuer(), Issuer()]
    for one in issuers:
        one.add("first")
    servers = [web_server(one) for one in issuers]
    first, other = (server.url for server in servers)
    prod = (
        f'issuers = ["{other}"], scope_prefix = "mq-", additional_scopes_keys = ["roles"], '
        'username_claims = ["email"], scope_aliases = { reader = "mq-read:*/* mq-configure:*/prod-*" }'
    )
    broker = start(**{"oauth2.issuers": first, "oauth2.resource_servers": f"{{ prod = {{ {prod} }}, test = {{}} }}"})
    # The first one's prefix is its id and a dot, and so is that of `test`.
    login(broker, issuers[0].token(*ALL, iss=first)).close()
    login(broker, issuers[0].token(iss=first, aud="test", scope="test.read:*/*")).close()
    with pytest.raises(ProbableAccessDeniedError):
        login(broker, issuers[0].token(*ALL, iss=first, aud="test"))
    claims = {"iss": other, "aud": ["prod", "else"], "email": "ann@prod", "scope": "", "roles": ["reader"]}
    with login(broker, issuers[1].token(**claims)) as connection:
        connection.channel().queue_declare("prod-queue", exclusive=True)
        code, text = channel_error(connection, lambda one: one.queue_declare("queue"))
        assert (code, "refused for user 'ann@prod'" in text) == (403, True)

    def reason(token):
        refused(broker, token)
        return broker.log().rsplit("the token is refused: ", 1)[1].splitlines()[0]

    # Each issuer is for its own resource servers alone.
    assert "its issuer is not accepted" in reason(issuers[0].token(**claims | {"iss": first}))
    assert "its issuer is not accepted" in reason(issuers[1].token(*ALL, iss=other))
    assert "its signature is wrong for its issuer" in reason(issuers[0].token(**claims))
    several = reason(issuers[0].token(*ALL, iss=first, aud=[RESOURCE_SERVER, "test"]))
    assert "it is for several resource servers of this broker" in several
    assert "it is not for this resource server" in reason(issuers[0].token(*ALL, iss=first, aud="somebody"))
    broker.close()
    for server in servers:
        server.close()


def test_resource_servers_alone(keys, issuer):
    """Without a first one, which leaves nothing for its name."""
    settings = {"oauth2.jwks_uri": f"{keys.url}/keys", "oauth2.resource_servers": "{ prod = {} }"}
    broker = start(**settings | {"oauth2.resource_server_id": ""})
    login(broker, issuer.token(aud="prod", scope="prod.read:*/*")).close()
    refused(broker, issuer.token(*ALL))
    refused(broker, issuer.token(*ALL, aud=""))
    broker.close()


def test_keys_over_tls(tmp_path, issuer):
    """With a certificate authority that the system does not know; without naming it nothing is fetched."""
    service = Service(lambda _path, _parameters: json.dumps(issuer.jwks()), tls=tmp_path)
    address = f"{service.url}/keys"
    broker = start(**{"oauth2.jwks_uri": address, "oauth2.cacertfile": tmp_path / "authority.pem"})
    login(broker, issuer.token(*ALL)).close()
    broker.close()
    broker = start(**{"oauth2.jwks_uri": address})
    refused(broker, issuer.token(*ALL))
    wait_until(lambda: "no TLS connection" in broker.log(), "a warning")
    broker.close()
    service.close()


def test_keys_from_files(tmp_path, issuer):
    (tmp_path / "keys.json").write_text(json.dumps(issuer.jwks()))
    broker = start(**{"oauth2.jwks_file": tmp_path / "keys.json"})
    login(broker, issuer.token(*ALL)).close()
    issuer.add("third")
    (tmp_path / "keys.json").write_text(json.dumps(issuer.jwks()))
    time.sleep(1.1)
    login(broker, issuer.token(*ALL, kid="third")).close()
    broker.close()


def test_keys_from_pem_files(tmp_path, issuer):
    """With roles in place of scopes."""
    _kind, key = issuer.keys["first"]
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "first.pem").write_bytes(public)
    broker = start(**{
        "oauth2.signing_keys": f"first={tmp_path / 'first.pem'}",
        "oauth2.additional_scopes_keys": "realm.roles",
        "oauth2.scope_aliases": "reader=rabbitmq.read:*/* rabbitmq.configure:*/{sub}-*",
        "oauth2.username_claims": "preferred_username,sub",
    })
    token = issuer.token(realm={"roles": ["reader", "else"]}, preferred_username="ann smith")
    with login(broker, token) as connection:
        connection.channel().queue_declare("ann-queue", exclusive=True)
        _code, text = channel_error(connection, lambda one: one.queue_declare("queue"))
        assert "refused for user 'ann smith'" in text
    broker.close()


def test_an_issuer_that_is_down_harms_nobody_else(issuer):
    broker = start(**{"oauth2.jwks_uri": "http://127.0.0.1:1/keys"})
    login(broker, "guest", "guest").close()
    refused(broker, issuer.token(*ALL))
    wait_until(lambda: "cannot be fetched" in broker.log(), "a warning")
    broker.close()


def test_a_token_for_a_user_of_the_broker(keys, issuer):
    """The token says who it is, the broker what they may do."""
    settings = {"auth.backends": "oauth2+internal", "oauth2.jwks_uri": f"{keys.url}/keys"}
    broker = start(**settings)
    with login(broker, issuer.token(user="guest")) as connection:
        connection.channel().queue_declare("", exclusive=True)
    refused(broker, issuer.token(*ALL, user="nobody"))
    broker.close()
