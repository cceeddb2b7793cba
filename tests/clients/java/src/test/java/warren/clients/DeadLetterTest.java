package warren.clients;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.BuiltinExchangeType;
import com.rabbitmq.client.GetResponse;
import com.rabbitmq.client.LongString;
import java.util.Date;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;

/** Where dead messages go and what their headers tell. */
class DeadLetterTest extends BrokerTest {

    @Test
    void rejectedMessage() throws Exception {
        Graves graves = graves(Map.of());
        publishConfirmed("", graves.source, "rejected");
        GetResponse delivered = channel.basicGet(graves.source, false);
        channel.basicReject(delivered.getEnvelope().getDeliveryTag(), false);

        GetResponse dead = awaitMessage(graves.dead);
        assertEquals("rejected", text(dead));
        assertEquals(graves.exchange, dead.getEnvelope().getExchange());
        assertEquals(graves.source, dead.getEnvelope().getRoutingKey());
        assertDeath(only(dead), graves.source, "rejected", 1, "", graves.source);
        assertFirstAndLast(dead, graves.source, "rejected", "", graves.source, "rejected", "");
    }

    @Test
    void nackedMessageKeepsItsPropertiesAndTakesTheNewKey() throws Exception {
        String direct = exchange(BuiltinExchangeType.DIRECT, Map.of());
        String dead = exclusiveQueue(Map.of());
        channel.queueBind(dead, direct, "buried");
        String source = exclusiveQueue(
                Map.of("x-dead-letter-exchange", direct, "x-dead-letter-routing-key", "buried"));
        AMQP.BasicProperties properties = new AMQP.BasicProperties.Builder()
                .deliveryMode(2).priority(3).messageId("id").headers(Map.of("mine", "kept")).build();
        publish("", source, properties, "nacked");
        channel.basicNack(awaitUnacknowledged(source), true, false);

        GetResponse buried = awaitMessage(dead);
        assertEquals("buried", buried.getEnvelope().getRoutingKey());
        assertEquals("id", buried.getProps().getMessageId());
        assertEquals(2, buried.getProps().getDeliveryMode());
        assertEquals(3, buried.getProps().getPriority());
        assertEquals("kept", buried.getProps().getHeaders().get("mine").toString());
        assertDeath(only(buried), source, "rejected", 1, "", source);
    }

    @Test
    void messageExpiredByTheQueue() throws Exception {
        Graves graves = graves(Map.of("x-message-ttl", 50));
        String fanout = exchange(BuiltinExchangeType.FANOUT, Map.of());
        channel.queueBind(graves.source, fanout, "");
        publishConfirmed(fanout, "any.key", "expired");
        GetResponse dead = awaitMessage(graves.dead);
        assertDeath(only(dead), graves.source, "expired", 1, fanout, "any.key");
        assertFirstAndLast(dead, graves.source, "expired", fanout, graves.source, "expired", fanout);
        assertEquals(0, channel.messageCount(graves.source));
    }

    @Test
    void messageExpiredByItsOwnExpiration() throws Exception {
        Graves graves = graves(Map.of());
        publish("", graves.source, expiration("60"), "expired");
        GetResponse dead = awaitMessage(graves.dead);
        assertNull(dead.getProps().getExpiration());
        Map<String, Object> death = only(dead);
        assertEquals("60", assertInstanceOf(LongString.class, death.remove("original-expiration")).toString());
        assertDeath(death, graves.source, "expired", 1, "", graves.source);
    }

    @Test
    void messageThatMayNotWait() throws Exception {
        Graves graves = graves(Map.of());
        Collector collector = consume(connection.createChannel(), graves.source, true, Map.of());
        publish("", graves.source, expiration("0"), "delivered");
        assertEquals(List.of("delivered"), collector.bodies(1));
        collector.getChannel().close();
        publish("", graves.source, expiration("0"), "expired");
        assertEquals("expired", text(awaitMessage(graves.dead)));
    }

    @Test
    void messageBeyondTheLength() throws Exception {
        Graves graves = graves(Map.of("x-max-length", 1));
        publishConfirmed("", graves.source, "oldest", "newest");
        GetResponse dead = awaitMessage(graves.dead);
        assertEquals("oldest", text(dead));
        assertDeath(only(dead), graves.source, "maxlen", 1, "", graves.source);
        assertEquals(List.of("newest"), drain(graves.source));
    }

    @Test
    void messageRefusedByRejectPublishDlx() throws Exception {
        Graves graves = graves(Map.of("x-max-length", 1, "x-overflow", "reject-publish-dlx"));
        publishConfirmed("", graves.source, "kept");
        publish("", graves.source, "refused");
        assertEquals(false, channel.waitForConfirms(DEADLINE.toMillis()));
        GetResponse dead = awaitMessage(graves.dead);
        assertEquals("refused", text(dead));
        assertDeath(only(dead), graves.source, "maxlen", 1, "", graves.source);
    }

    @Test
    void retryCycleCounts() throws Exception {
        String work = sharedQueue(Map.of());
        channel.queueDelete(work);
        String retry = exclusiveQueue(Map.of(
                "x-dead-letter-exchange", "", "x-dead-letter-routing-key", work, "x-message-ttl", 20));
        channel.queueDeclare(work, true, false, false,
                Map.of("x-dead-letter-exchange", "", "x-dead-letter-routing-key", retry));
        Collector worker = consume(channel, work);
        publish("", work, "poison");
        for (int attempt = 0; attempt < 3; attempt++) {
            channel.basicReject(worker.next().getEnvelope().getDeliveryTag(), false);
        }
        var last = worker.next();
        List<?> deaths = assertInstanceOf(List.class, last.getProperties().getHeaders().get("x-death"));
        assertEquals(2, deaths.size());
        assertDeath(table(deaths.get(0)), retry, "expired", 3, "", retry);
        assertDeath(table(deaths.get(1)), work, "rejected", 3, "", work);
        Map<String, Object> headers = last.getProperties().getHeaders();
        assertEquals(work, headers.get("x-first-death-queue").toString());
        assertEquals("rejected", headers.get("x-first-death-reason").toString());
        assertEquals(retry, headers.get("x-last-death-queue").toString());
        assertEquals("expired", headers.get("x-last-death-reason").toString());
        channel.basicAck(last.getEnvelope().getDeliveryTag(), false);
    }

    @Test
    void automaticCycleIsBroken() throws Exception {
        String name = uniqueName("cycle");
        channel.queueDeclare(name, false, true, false, Map.of(
                "x-dead-letter-exchange", "", "x-dead-letter-routing-key", name, "x-message-ttl", 30));
        publishConfirmed("", name, "cycling");
        awaitTrue("the message to be dropped", () -> channel.messageCount(name) == 0);
        assertNull(channel.basicGet(name, true));
    }

    @Test
    void missingDeadLetterExchangeDropsTheMessage() throws Exception {
        String source = exclusiveQueue(Map.of("x-dead-letter-exchange", uniqueName("missing")));
        publishConfirmed("", source, "dropped");
        channel.basicReject(channel.basicGet(source, false).getEnvelope().getDeliveryTag(), false);
        assertNull(channel.basicGet(source, true));
        assertTrue(channel.isOpen());
    }

    @Test
    void purgeAndDeletionBuryNothing() throws Exception {
        Graves graves = graves(Map.of());
        publishConfirmed("", graves.source, "purged");
        assertEquals(1, channel.queuePurge(graves.source).getMessageCount());
        publishConfirmed("", graves.source, "deleted");
        assertEquals(1, channel.queueDelete(graves.source).getMessageCount());
        publishConfirmed(graves.exchange, "", "marker");
        assertEquals(List.of("marker"), drain(graves.dead));
    }

    @Test
    void messageExpiresBehindOneThatDoesNot() throws Exception {
        onlyWarren("RabbitMQ's classic queues expire messages at the head only");
        Graves graves = graves(Map.of());
        publish("", graves.source, "stays");
        publish("", graves.source, expiration("50"), "expires");
        assertEquals("expires", text(awaitMessage(graves.dead)));
        assertEquals(List.of("stays"), drain(graves.source));
    }

    /** A queue and where its dead messages go. */
    private record Graves(String exchange, String source, String dead) {}

    private Graves graves(Map<String, Object> sourceArguments) throws Exception {
        String exchange = exchange(BuiltinExchangeType.FANOUT, Map.of());
        Map<String, Object> arguments = new HashMap<>(sourceArguments);
        arguments.put("x-dead-letter-exchange", exchange);
        String source = exclusiveQueue(arguments);
        String dead = exclusiveQueue(Map.of());
        channel.queueBind(dead, exchange, "");
        return new Graves(exchange, source, dead);
    }

    private long awaitUnacknowledged(String queue) throws Exception {
        return await("a message", () -> channel.basicGet(queue, false)).getEnvelope().getDeliveryTag();
    }

    private static AMQP.BasicProperties expiration(String milliseconds) {
        return new AMQP.BasicProperties.Builder().expiration(milliseconds).build();
    }

    private static Map<String, Object> only(GetResponse dead) {
        List<?> deaths = assertInstanceOf(List.class, dead.getProps().getHeaders().get("x-death"));
        assertEquals(1, deaths.size());
        return table(deaths.get(0));
    }

    @SuppressWarnings("unchecked")
    private static Map<String, Object> table(Object value) {
        return new HashMap<>((Map<String, Object>) assertInstanceOf(Map.class, value));
    }

    /** Checks names, types and values of every field of an x-death entry. */
    private static void assertDeath(
            Map<String, Object> death, String queue, String reason, long count, String exchange, String key) {
        Map<String, Object> rest = new HashMap<>(death);
        Date time = assertInstanceOf(Date.class, rest.remove("time"));
        long age = System.currentTimeMillis() - time.getTime();
        assertTrue(age > -2_000 && age < 60_000, "time of death " + time);
        assertEquals(count, assertInstanceOf(Long.class, rest.remove("count")));
        assertEquals(reason, assertInstanceOf(LongString.class, rest.remove("reason")).toString());
        assertEquals(queue, assertInstanceOf(LongString.class, rest.remove("queue")).toString());
        assertEquals(exchange, assertInstanceOf(LongString.class, rest.remove("exchange")).toString());
        List<?> keys = assertInstanceOf(List.class, rest.remove("routing-keys"));
        assertEquals(List.of(key), keys.stream().map(Object::toString).toList());
        assertEquals(Map.of(), rest);
    }

    private static void assertFirstAndLast(GetResponse dead, String firstQueue, String firstReason,
            String firstExchange, String lastQueue, String lastReason, String lastExchange) {
        Map<String, Object> headers = new HashMap<>(dead.getProps().getHeaders());
        headers.remove("x-death");
        headers.replaceAll((name, value) -> assertInstanceOf(LongString.class, value).toString());
        assertEquals(Map.of(
                "x-first-death-queue", firstQueue, "x-first-death-reason", firstReason,
                "x-first-death-exchange", firstExchange, "x-last-death-queue", lastQueue,
                "x-last-death-reason", lastReason, "x-last-death-exchange", lastExchange), headers);
    }
}
