/* Bodies over several frames, properties and headers as they were sent, and the order of the death records. */
#include "harness.h"

#include <string.h>

static void round_trip(amqp_connection_state_t connection, amqp_bytes_t queue, size_t size) {
  amqp_bytes_t body = patterned_body(size);
  publish(connection, "", queue, NULL, body);
  amqp_message_t message = await_message(connection, queue);
  if (message.body.len != size) fail("sent %zu bytes, got %zu", size, message.body.len);
  CHECK(size == 0 || memcmp(message.body.bytes, body.bytes, size) == 0);
  amqp_destroy_message(&message);
  amqp_bytes_free(body);
  amqp_maybe_release_buffers(connection);
}

/* Sizes around the number of bytes that fit one frame, and one of 5 MiB. */
static void bodies_over_frames_of(int frame_max) {
  amqp_connection_state_t connection = connect_with(frame_max, NO_HEARTBEAT);
  CHECK(amqp_get_frame_max(connection) == frame_max);
  amqp_bytes_t queue = declare_queue(connection, amqp_empty_table);
  size_t payload = (size_t)frame_max - 8;
  size_t sizes[] = {0, 1, payload - 1, payload, payload + 1, 2 * payload, 3 * payload + 7, 5 * 1024 * 1024};
  for (size_t index = 0; index < sizeof sizes / sizeof sizes[0]; index++)
    round_trip(connection, queue, sizes[index]);
  disconnect(connection);
}

static void bodies_over_frames_of_128_kib(void) { bodies_over_frames_of(DEFAULT_FRAME_MAX); }

static void bodies_over_frames_of_8_kib(void) { bodies_over_frames_of(8192); }

static void bodies_over_frames_of_4_kib(void) {
  amqp_connection_state_t connection = connect_broker();
  bool reference = is_reference(connection);
  disconnect(connection);
  if (reference) skip("RabbitMQ refuses frames smaller than 8192 bytes since 4.1");
  bodies_over_frames_of(4096);
}

static amqp_basic_properties_t every_property(void) {
  amqp_basic_properties_t properties = {
      ._flags = AMQP_BASIC_CONTENT_TYPE_FLAG | AMQP_BASIC_CONTENT_ENCODING_FLAG | AMQP_BASIC_DELIVERY_MODE_FLAG |
                AMQP_BASIC_PRIORITY_FLAG | AMQP_BASIC_CORRELATION_ID_FLAG | AMQP_BASIC_REPLY_TO_FLAG |
                AMQP_BASIC_EXPIRATION_FLAG | AMQP_BASIC_MESSAGE_ID_FLAG | AMQP_BASIC_TIMESTAMP_FLAG |
                AMQP_BASIC_TYPE_FLAG | AMQP_BASIC_USER_ID_FLAG | AMQP_BASIC_APP_ID_FLAG | AMQP_BASIC_CLUSTER_ID_FLAG,
      .content_type = amqp_cstring_bytes("text/plain"),
      .content_encoding = amqp_cstring_bytes("utf-8"),
      .delivery_mode = AMQP_DELIVERY_PERSISTENT,
      .priority = 7,
      .correlation_id = amqp_cstring_bytes("correlation"),
      .reply_to = amqp_cstring_bytes("reply"),
      .expiration = amqp_cstring_bytes("60000"),
      .message_id = amqp_cstring_bytes("message"),
      .timestamp = 1700000000,
      .type = amqp_cstring_bytes("type"),
      .user_id = amqp_cstring_bytes(broker.user),
      .app_id = amqp_cstring_bytes("application"),
      .cluster_id = amqp_cstring_bytes("cluster")};
  return properties;
}

static void every_property_arrives(void) {
  amqp_connection_state_t connection = connect_broker();
  amqp_bytes_t queue = declare_queue(connection, amqp_empty_table);
  amqp_basic_properties_t sent = every_property();
  publish(connection, "", queue, &sent, amqp_cstring_bytes("body"));
  amqp_message_t message = await_message(connection, queue);
  amqp_basic_properties_t *got = &message.properties;
  CHECK(got->_flags == sent._flags);
  CHECK(bytes_equal(got->content_type, "text/plain") && bytes_equal(got->content_encoding, "utf-8"));
  CHECK(got->delivery_mode == 2 && got->priority == 7 && got->timestamp == 1700000000);
  CHECK(bytes_equal(got->correlation_id, "correlation") && bytes_equal(got->reply_to, "reply"));
  CHECK(bytes_equal(got->expiration, "60000") && bytes_equal(got->message_id, "message"));
  CHECK(bytes_equal(got->type, "type") && bytes_equal(got->user_id, broker.user));
  CHECK(bytes_equal(got->app_id, "application") && bytes_equal(got->cluster_id, "cluster"));
  disconnect(connection);
}

/* The kinds of field the Java and most other clients never send are here as well. The names are in order: a broker
 * may sort headers by their names, as RabbitMQ does. */
static int fill_headers(amqp_table_entry_t *entries) {
  static amqp_field_value_t elements[2] = {{.kind = AMQP_FIELD_KIND_U8, .value = {.u8 = 200}},
                                           {.kind = AMQP_FIELD_KIND_VOID}};
  static amqp_table_entry_t inner[1];
  inner[0] = text_entry("inner", "value");
  amqp_field_value_t values[] = {
      {.kind = AMQP_FIELD_KIND_BOOLEAN, .value = {.boolean = 1}},
      {.kind = AMQP_FIELD_KIND_I8, .value = {.i8 = -100}},
      {.kind = AMQP_FIELD_KIND_U8, .value = {.u8 = 200}},
      {.kind = AMQP_FIELD_KIND_I16, .value = {.i16 = -30000}},
      {.kind = AMQP_FIELD_KIND_U16, .value = {.u16 = 60000}},
      {.kind = AMQP_FIELD_KIND_I32, .value = {.i32 = -2000000000}},
      {.kind = AMQP_FIELD_KIND_U32, .value = {.u32 = 4000000000U}},
      {.kind = AMQP_FIELD_KIND_I64, .value = {.i64 = INT64_MIN}},
      {.kind = AMQP_FIELD_KIND_F32, .value = {.f32 = 1.5F}},
      {.kind = AMQP_FIELD_KIND_F64, .value = {.f64 = 3.25}},
      {.kind = AMQP_FIELD_KIND_DECIMAL, .value = {.decimal = {.decimals = 2, .value = 4000000000U}}},
      {.kind = AMQP_FIELD_KIND_UTF8, .value = {.bytes = amqp_cstring_bytes("text")}},
      {.kind = AMQP_FIELD_KIND_BYTES, .value = {.bytes = {.len = 3, .bytes = "\x00\xff\xce"}}},
      {.kind = AMQP_FIELD_KIND_TIMESTAMP, .value = {.u64 = 1700000000}},
      {.kind = AMQP_FIELD_KIND_VOID},
      {.kind = AMQP_FIELD_KIND_ARRAY, .value = {.array = {.num_entries = 2, .entries = elements}}},
      {.kind = AMQP_FIELD_KIND_TABLE, .value = {.table = {.num_entries = 1, .entries = inner}}}};
  static const char *names[] = {"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q"};
  int count = (int)(sizeof values / sizeof values[0]);
  for (int index = 0; index < count; index++) {
    entries[index].key = amqp_cstring_bytes(names[index]);
    entries[index].value = values[index];
  }
  return count;
}

/* The encoded form covers kinds, values and order at once. */
static size_t encode(amqp_table_t table, unsigned char *buffer, size_t size) {
  size_t offset = 0;
  CHECK(amqp_encode_table((amqp_bytes_t){.len = size, .bytes = buffer}, &table, &offset) == AMQP_STATUS_OK);
  return offset;
}

static void every_header_kind_arrives_in_order(void) {
  amqp_connection_state_t connection = connect_broker();
  amqp_bytes_t queue = declare_queue(connection, amqp_empty_table);
  amqp_table_entry_t entries[32];
  amqp_basic_properties_t sent = {._flags = AMQP_BASIC_HEADERS_FLAG};
  sent.headers = (amqp_table_t){.num_entries = fill_headers(entries), .entries = entries};
  publish(connection, "", queue, &sent, amqp_cstring_bytes("body"));
  amqp_message_t message = await_message(connection, queue);
  unsigned char before[1024];
  unsigned char after[1024];
  size_t length = encode(sent.headers, before, sizeof before);
  CHECK(encode(message.properties.headers, after, sizeof after) == length);
  for (size_t offset = 0; offset < length; offset++)
    if (before[offset] != after[offset])
      fail("the headers differ at byte %zu: sent %02x, got %02x", offset, before[offset], after[offset]);
  disconnect(connection);
}

/* An entry must have these names and kinds, in this order. */
static void check_fields(amqp_table_t table, const char *const *names, const char *kinds) {
  CHECK(table.num_entries == (int)strlen(kinds));
  for (int index = 0; index < table.num_entries; index++) {
    amqp_table_entry_t *entry = &table.entries[index];
    if (!bytes_equal(entry->key, names[index]) || entry->value.kind != (uint8_t)kinds[index])
      fail("field %d: expected %s of kind %c, got %.*s of kind %c", index, names[index], kinds[index],
           (int)entry->key.len, (char *)entry->key.bytes, entry->value.kind);
  }
}

static void death_records_on_the_wire(void) {
  amqp_connection_state_t connection = connect_broker();
  amqp_bytes_t dead = declare_queue(connection, amqp_empty_table);
  amqp_table_entry_t arguments[2] = {text_entry("x-dead-letter-exchange", ""),
                                     text_entry("x-dead-letter-routing-key", "")};
  arguments[1].value.value.bytes = dead;
  amqp_bytes_t source = declare_queue(connection, (amqp_table_t){.num_entries = 2, .entries = arguments});
  amqp_basic_properties_t expiring = {._flags = AMQP_BASIC_EXPIRATION_FLAG, .expiration = amqp_cstring_bytes("30")};
  publish(connection, "", source, &expiring, amqp_cstring_bytes("expired"));
  amqp_message_t message = await_message(connection, dead);
  CHECK(!(message.properties._flags & AMQP_BASIC_EXPIRATION_FLAG));
  static const char *const headers[] = {"x-death",
                                        "x-first-death-exchange",
                                        "x-first-death-queue",
                                        "x-first-death-reason",
                                        "x-last-death-exchange",
                                        "x-last-death-queue",
                                        "x-last-death-reason"};
  check_fields(message.properties.headers, headers, "ASSSSSS");
  amqp_array_t deaths = message.properties.headers.entries[0].value.value.array;
  CHECK(deaths.num_entries == 1 && deaths.entries[0].kind == AMQP_FIELD_KIND_TABLE);
  static const char *const death[] = {"original-expiration", "count",    "reason",      "queue",
                                      "time",                "exchange", "routing-keys"};
  amqp_table_t record = deaths.entries[0].value.table;
  check_fields(record, death, "SlSSTSA");
  CHECK(bytes_equal(record.entries[0].value.value.bytes, "30"));
  CHECK(record.entries[1].value.value.i64 == 1);
  CHECK(bytes_equal(record.entries[2].value.value.bytes, "expired"));
  amqp_array_t keys = record.entries[6].value.value.array;
  CHECK(keys.num_entries == 1 && keys.entries[0].kind == AMQP_FIELD_KIND_UTF8);
  disconnect(connection);
}

const struct test message_tests[] = {
    {"bodies over frames of 128 KiB", bodies_over_frames_of_128_kib},
    {"bodies over frames of 8 KiB", bodies_over_frames_of_8_kib},
    {"bodies over frames of 4 KiB", bodies_over_frames_of_4_kib},
    {"every property arrives", every_property_arrives},
    {"every header kind arrives, in order", every_header_kind_arrives_in_order},
    {"death records on the wire", death_records_on_the_wire},
    {NULL, NULL}};
