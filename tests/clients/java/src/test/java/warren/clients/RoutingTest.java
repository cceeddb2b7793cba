package warren.clients;

import static org.junit.jupiter.api.Assertions.assertEquals;

import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.BuiltinExchangeType;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;

/** What each exchange type sends where. */
class RoutingTest extends BrokerTest {

    @Test
    void fanoutSendsToEverySubscriber() throws Exception {
        String logs = exchange(BuiltinExchangeType.FANOUT, Map.of());
        String first = boundQueue(logs, "");
        String second = boundQueue(logs, "a key that does not matter");
        publishConfirmed(logs, "anything", "one", "two");
        assertEquals(List.of("one", "two"), drain(first));
        assertEquals(List.of("one", "two"), drain(second));
    }

    @Test
    void directSendsByExactKey() throws Exception {
        String logs = exchange(BuiltinExchangeType.DIRECT, Map.of());
        String errors = boundQueue(logs, "error");
        String all = boundQueue(logs, "error");
        channel.queueBind(all, logs, "info");
        channel.queueBind(all, logs, "info");
        for (String severity : List.of("error", "info", "Error", "", "error ")) {
            publishConfirmed(logs, severity, severity);
        }
        assertEquals(List.of("error"), drain(errors));
        assertEquals(List.of("error", "info"), drain(all));
    }

    @Test
    void unboundQueuesGetNothingMore() throws Exception {
        String logs = exchange(BuiltinExchangeType.DIRECT, Map.of());
        String queue = boundQueue(logs, "a");
        channel.queueBind(queue, logs, "b");
        channel.queueUnbind(queue, logs, "a");
        channel.queueUnbind(queue, logs, "never bound");
        publishConfirmed(logs, "a", "a");
        publishConfirmed(logs, "b", "b");
        assertEquals(List.of("b"), drain(queue));
    }

    @Test
    void topicPatternsMatchWords() throws Exception {
        String topic = exchange(BuiltinExchangeType.TOPIC, Map.of());
        Map<String, List<String>> expected = Map.of(
                "*.orange.*", List.of("quick.orange.rabbit", "lazy.orange.elephant", ".orange."),
                "lazy.#", List.of("lazy.orange.elephant", "lazy", "lazy.brown.fox.jumps"),
                "#", topicKeys(),
                "*", List.of("lazy", "orange"),
                "#.orange.#", List.of("quick.orange.rabbit", "lazy.orange.elephant", ".orange.", "orange"),
                "quick.orange.rabbit", List.of("quick.orange.rabbit"),
                "laz*", List.of(),
                "*.#", topicKeys().stream().filter(key -> !key.isEmpty()).toList());
        Map<String, String> queues = new HashMap<>();
        for (String pattern : expected.keySet()) {
            queues.put(pattern, boundQueue(topic, pattern));
        }
        for (String key : topicKeys()) {
            publishConfirmed(topic, key, key);
        }
        for (Map.Entry<String, String> entry : queues.entrySet()) {
            List<String> received = drain(entry.getValue());
            assertEquals(expected.get(entry.getKey()).stream().sorted().toList(),
                    received.stream().sorted().toList(), "pattern " + entry.getKey());
        }
    }

    private static List<String> topicKeys() {
        return List.of("quick.orange.rabbit", "lazy.orange.elephant", "lazy", "orange", "lazy.brown.fox.jumps",
                "quick.brown.fox", "", ".orange.");
    }

    @Test
    void topicPatternsWithManyHashes() throws Exception {
        onlyWarren("RabbitMQ after 4.3 refuses more than two # in a binding key");
        String topic = exchange(BuiltinExchangeType.TOPIC, Map.of());
        String queue = boundQueue(topic, "#.a.#.b.#.c.#");
        publishConfirmed(topic, "x.a.b.y.z.c", "matches");
        publishConfirmed(topic, "x.b.a.c", "does not");
        assertEquals(List.of("matches"), drain(queue));
    }

    @Test
    void headersMatchInFourWays() throws Exception {
        String headers = exchange(BuiltinExchangeType.HEADERS, Map.of());
        Map<String, String> queues = new HashMap<>();
        for (String match : List.of("all", "any", "all-with-x", "any-with-x")) {
            String queue = exclusiveQueue(Map.of());
            channel.queueBind(queue, headers, "", Map.of("x-match", match, "kind", "report", "pages", 5, "x-tag", "t"));
            queues.put(match, queue);
        }
        publishWithHeaders(headers, "both", Map.of("kind", "report", "pages", 5L));
        publishWithHeaders(headers, "both and x", Map.of("kind", "report", "pages", (short) 5, "x-tag", "t"));
        publishWithHeaders(headers, "one", Map.of("kind", "report", "pages", 6));
        publishWithHeaders(headers, "x only", Map.of("x-tag", "t"));
        publishWithHeaders(headers, "wrong type", Map.of("kind", 1, "pages", "5"));
        publishWithHeaders(headers, "none", Map.of());
        publishConfirmed(headers, "", "no headers");

        assertEquals(List.of("both", "both and x"), drain(queues.get("all")));
        assertEquals(List.of("both", "both and x", "one"), drain(queues.get("any")));
        assertEquals(List.of("both and x"), drain(queues.get("all-with-x")));
        assertEquals(List.of("both", "both and x", "one", "x only"), drain(queues.get("any-with-x")));
    }

    @Test
    void headersBindingsWithoutValuesAndWithoutArguments() throws Exception {
        String headers = exchange(BuiltinExchangeType.HEADERS, Map.of());
        String present = exclusiveQueue(Map.of());
        Map<String, Object> presence = new HashMap<>();
        presence.put("kind", null);
        channel.queueBind(present, headers, "", presence);
        String everything = exclusiveQueue(Map.of());
        channel.queueBind(everything, headers, "");
        String nothing = exclusiveQueue(Map.of());
        channel.queueBind(nothing, headers, "", Map.of("x-match", "any"));

        publishWithHeaders(headers, "with", Map.of("kind", List.of("a", 1)));
        publishWithHeaders(headers, "without", Map.of("other", true));
        assertEquals(List.of("with"), drain(present));
        assertEquals(List.of("with", "without"), drain(everything));
        assertEquals(List.of(), drain(nothing));
    }

    @Test
    void exchangesBindToExchanges() throws Exception {
        String source = exchange(BuiltinExchangeType.TOPIC, Map.of());
        String destination = exchange(BuiltinExchangeType.FANOUT, Map.of());
        String queue = boundQueue(destination, "");
        channel.exchangeBind(destination, source, "stock.#");
        channel.exchangeBind(source, destination, "");
        publishConfirmed(source, "stock.nyse", "through both");
        publishConfirmed(source, "weather", "through none");
        assertEquals(List.of("through both"), drain(queue));

        channel.exchangeUnbind(destination, source, "stock.#");
        channel.exchangeUnbind(destination, source, "never bound");
        publishConfirmed(source, "stock.nyse", "unbound");
        assertEquals(List.of(), drain(queue));
    }

    @Test
    void alternateExchangeTakesWhatIsNotRouted() throws Exception {
        String unrouted = exchange(BuiltinExchangeType.FANOUT, Map.of());
        String caught = boundQueue(unrouted, "");
        String main = exchange(BuiltinExchangeType.DIRECT, Map.of("alternate-exchange", unrouted));
        String queue = boundQueue(main, "known");
        publishConfirmed(main, "known", "routed");
        publishConfirmed(main, "unknown", "caught");
        assertEquals(List.of("routed"), drain(queue));
        assertEquals(List.of("caught"), drain(caught));
    }

    @Test
    void predeclaredExchangesRoute() throws Exception {
        String key = uniqueName("key");
        String queue = exclusiveQueue(Map.of());
        for (String exchange : List.of("amq.direct", "amq.topic", "amq.fanout")) {
            channel.queueBind(queue, exchange, key);
            publishConfirmed(exchange, key, exchange);
        }
        for (String exchange : List.of("amq.headers", "amq.match")) {
            channel.queueBind(queue, exchange, "", Map.of("for", key));
            publishWithHeaders(exchange, exchange, Map.of("for", key));
        }
        assertEquals(List.of("amq.direct", "amq.topic", "amq.fanout", "amq.headers", "amq.match"), drain(queue));
    }

    @Test
    void carbonCopiesReachTheirQueues() throws Exception {
        String first = exclusiveQueue(Map.of());
        String copied = exclusiveQueue(Map.of());
        String hidden = exclusiveQueue(Map.of());
        publishWithHeaders("", first, "copies", Map.of("CC", List.of(copied, first), "BCC", List.of(hidden)));
        for (String queue : Arrays.asList(first, copied, hidden)) {
            var response = channel.basicGet(queue, true);
            assertEquals("copies", text(response));
            assertEquals(java.util.Set.of("CC"), response.getProps().getHeaders().keySet());
            assertEquals(first, response.getEnvelope().getRoutingKey());
            assertEquals(0, response.getMessageCount());
        }
    }

    private String boundQueue(String exchange, String key) throws Exception {
        String queue = exclusiveQueue(Map.of());
        channel.queueBind(queue, exchange, key);
        return queue;
    }

    private void publishWithHeaders(String exchange, String body, Map<String, Object> headers) throws Exception {
        publishWithHeaders(exchange, "", body, headers);
    }

    private void publishWithHeaders(String exchange, String key, String body, Map<String, Object> headers)
            throws Exception {
        channel.confirmSelect();
        publish(exchange, key, new AMQP.BasicProperties.Builder().headers(headers).build(), body);
        channel.waitForConfirmsOrDie(DEADLINE.toMillis());
    }
}
