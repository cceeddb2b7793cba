/* Requests and replies. */
#include "harness.h"

#include <stdio.h>
#include <string.h>

static void consume(amqp_connection_state_t connection, amqp_bytes_t queue) {
  amqp_basic_consume(connection, CHANNEL, queue, amqp_empty_bytes, 0, 1, 0, amqp_empty_table);
  expect_normal(connection, "basic.consume");
}

static amqp_envelope_t next_envelope(amqp_connection_state_t connection) {
  amqp_envelope_t envelope;
  struct timeval timeout = {.tv_sec = DEADLINE_SECONDS};
  amqp_maybe_release_buffers(connection);
  expect_normal_reply(amqp_consume_message(connection, &envelope, &timeout, 0), "waiting for a delivery");
  return envelope;
}

static void ask(amqp_connection_state_t client, amqp_bytes_t requests, amqp_bytes_t reply_to, int number) {
  char text[32];
  snprintf(text, sizeof text, "question %d", number);
  amqp_basic_properties_t properties = {._flags = AMQP_BASIC_REPLY_TO_FLAG | AMQP_BASIC_CORRELATION_ID_FLAG,
                                        .reply_to = reply_to,
                                        .correlation_id = amqp_cstring_bytes(text)};
  publish(client, "", requests, &properties, amqp_cstring_bytes(text));
}

/* Answers one request with its own text in front of which stands "answer to ". */
static void serve(amqp_connection_state_t server) {
  amqp_envelope_t request = next_envelope(server);
  char text[64];
  snprintf(text, sizeof text, "answer to %.*s", (int)request.message.body.len, (char *)request.message.body.bytes);
  amqp_basic_properties_t properties = {._flags = AMQP_BASIC_CORRELATION_ID_FLAG,
                                        .correlation_id = request.message.properties.correlation_id};
  publish(server, "", request.message.properties.reply_to, &properties, amqp_cstring_bytes(text));
  amqp_destroy_envelope(&request);
}

static void calls_over(const char *reply_to) {
  amqp_connection_state_t server = connect_broker();
  amqp_bytes_t requests = declare_queue(server, amqp_empty_table);
  consume(server, requests);
  amqp_connection_state_t client = connect_broker();
  amqp_bytes_t replies = reply_to == NULL ? declare_queue(client, amqp_empty_table) : amqp_cstring_bytes(reply_to);
  consume(client, replies);
  for (int number = 0; number < 20; number++) {
    ask(client, requests, replies, number);
    serve(server);
    amqp_envelope_t reply = next_envelope(client);
    char wanted[64];
    snprintf(wanted, sizeof wanted, "answer to question %d", number);
    CHECK(bytes_equal(reply.message.body, wanted));
    CHECK(bytes_equal(reply.message.properties.correlation_id, wanted + strlen("answer to ")));
    CHECK(reply.delivery_tag == (uint64_t)number + 1);
    CHECK(!reply.redelivered);
    CHECK(bytes_equal(reply.exchange, ""));
    amqp_destroy_envelope(&reply);
  }
  disconnect(client);
  disconnect(server);
}

static void calls_over_a_reply_queue(void) { calls_over(NULL); }

static void calls_over_direct_reply_to(void) { calls_over("amq.rabbitmq.reply-to"); }

static void a_reply_address_is_rewritten(void) {
  amqp_connection_state_t connection = connect_broker();
  amqp_bytes_t requests = declare_queue(connection, amqp_empty_table);
  consume(connection, amqp_cstring_bytes("amq.rabbitmq.reply-to"));
  ask(connection, requests, amqp_cstring_bytes("amq.rabbitmq.reply-to"), 1);
  amqp_message_t message = await_message(connection, requests);
  const char *start = "amq.rabbitmq.reply-to.";
  amqp_bytes_t address = message.properties.reply_to;
  CHECK(address.len > strlen(start) && memcmp(address.bytes, start, strlen(start)) == 0);
  disconnect(connection);
}

static void a_reply_address_needs_its_consumer(void) {
  amqp_connection_state_t connection = connect_broker();
  amqp_bytes_t requests = declare_queue(connection, amqp_empty_table);
  ask(connection, requests, amqp_cstring_bytes("amq.rabbitmq.reply-to"), 1);
  expect_asynchronous_channel_close(connection, CHANNEL, 406,
                                    "PRECONDITION_FAILED - fast reply consumer does not exist", 60, 40);
  disconnect(connection);
}

const struct test rpc_tests[] = {{"calls over a reply queue", calls_over_a_reply_queue},
                                 {"calls over direct reply-to", calls_over_direct_reply_to},
                                 {"a reply address is rewritten", a_reply_address_is_rewritten},
                                 {"a reply address needs its consumer", a_reply_address_needs_its_consumer},
                                 {NULL, NULL}};
