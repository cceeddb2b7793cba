package warren.clients;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.BuiltinExchangeType;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import java.util.Map;
import org.junit.jupiter.api.Test;

/** The exact code, text, class and method of the errors a client can provoke. */
class ErrorTest extends BrokerTest {
    private static final String VHOST = "' in vhost '" + ENDPOINT.virtualHost() + "'";

    @Test
    void missingQueues() throws Exception {
        String text = "NOT_FOUND - no queue 'missing" + VHOST;
        assertChannelError(404, text, 60, 20, failing -> consume(failing, "missing"));
        assertChannelError(404, text, 60, 70, failing -> failing.basicGet("missing", true));
        assertChannelError(404, text, 50, 10, failing -> failing.queueDeclarePassive("missing"));
        assertChannelError(404, text, 50, 30, failing -> failing.queuePurge("missing"));
        assertChannelError(404, text, 50, 20, failing -> failing.queueBind("missing", "amq.direct", ""));
        assertChannelError(404, "NOT_FOUND - no previously declared queue", 60, 20, failing -> consume(failing, ""));
    }

    @Test
    void missingExchanges() throws Exception {
        String queue = exclusiveQueue(Map.of());
        String text = "NOT_FOUND - no exchange 'missing" + VHOST;
        assertChannelError(404, text, 60, 40,
                failing -> failing.basicPublish("missing", "", NO_PROPERTIES, bytes("lost")));
        assertChannelError(404, text, 40, 10, failing -> failing.exchangeDeclarePassive("missing"));
        assertChannelError(404, text, 50, 20, failing -> failing.queueBind(queue, "missing", ""));
        assertChannelError(404, text, 40, 30, failing -> failing.exchangeBind("amq.fanout", "missing", ""));
    }

    @Test
    void differentQueueArguments() throws Exception {
        String limited = exclusiveQueue(Map.of("x-max-length", 10));
        String text = "PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue '" + limited + VHOST;
        assertChannelError(406, text + ": received none but current is the value '10' of type 'signedint'", 50, 10,
                failing -> failing.queueDeclare(limited, false, true, false, Map.of()));
        assertChannelError(406, text + ": received '20' but current is '10'", 50, 10,
                failing -> failing.queueDeclare(limited, false, true, false, Map.of("x-max-length", 20)));
        channel.queueDeclare(limited, false, true, false, Map.of("x-max-length", 10L, "unknown", "ignored"));

        String plain = exclusiveQueue(Map.of());
        assertChannelError(406, "PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue '" + plain + VHOST
                        + ": received the value '5' of type 'long' but current is none", 50, 10,
                failing -> failing.queueDeclare(plain, false, true, false, Map.of("x-message-ttl", 5L)));
        assertChannelError(406, "PRECONDITION_FAILED - inequivalent arg 'auto_delete' for queue '" + plain + VHOST
                        + ": received 'true' but current is 'false'", 50, 10,
                failing -> failing.queueDeclare(plain, false, true, true, Map.of()));
    }

    @Test
    void differentExchangeProperties() throws Exception {
        String direct = exchange(BuiltinExchangeType.DIRECT, Map.of("alternate-exchange", "amq.fanout"));
        String start = "PRECONDITION_FAILED - inequivalent arg '";
        String end = "' for exchange '" + direct + VHOST + ": received ";
        assertChannelError(406, start + "type" + end + "'fanout' but current is 'direct'", 40, 10,
                failing -> failing.exchangeDeclare(direct, BuiltinExchangeType.FANOUT, true));
        assertChannelError(406, start + "durable" + end + "'false' but current is 'true'", 40, 10,
                failing -> failing.exchangeDeclare(direct, BuiltinExchangeType.DIRECT, false));
        assertChannelError(406, start + "alternate-exchange" + end
                        + "none but current is the value 'amq.fanout' of type 'longstr'", 40, 10,
                failing -> failing.exchangeDeclare(direct, BuiltinExchangeType.DIRECT, true));
    }

    @Test
    void invalidDeclarations() throws Exception {
        assertChannelError(406, "PRECONDITION_FAILED - unknown exchange type 'x-nonsense'", 40, 10,
                failing -> failing.exchangeDeclare("java-unknown", "x-nonsense"));
        String queue = uniqueName("invalid");
        String text = "PRECONDITION_FAILED - invalid arg '";
        assertChannelError(406, text + "x-message-ttl' for queue '" + queue + VHOST + ": {value_negative,-1}", 50, 10,
                failing -> failing.queueDeclare(queue, false, true, false, Map.of("x-message-ttl", -1)));
        assertChannelErrorStarts(text + "x-max-length' for queue '" + queue + VHOST + ": ",
                failing -> failing.queueDeclare(queue, false, true, false, Map.of("x-max-length", "ten")));
        assertChannelErrorStarts("PRECONDITION_FAILED - invalid arg 'x-dead-letter-routing-key' for queue '" + queue,
                failing -> failing.queueDeclare(queue, false, true, false, Map.of("x-dead-letter-routing-key", "k")));
        assertChannelErrorStarts("PRECONDITION_FAILED - ",
                failing -> failing.queueDeclare(queue, false, true, false, Map.of("x-overflow", "sometimes")));
        String headers = exchange(BuiltinExchangeType.HEADERS, Map.of());
        String bound = exclusiveQueue(Map.of());
        assertChannelErrorStarts("PRECONDITION_FAILED - Invalid x-match field value ",
                failing -> failing.queueBind(bound, headers, "", Map.of("x-match", "some")));
    }

    @Test
    void reservedNames() throws Exception {
        String start = "ACCESS_REFUSED - ";
        assertChannelError(403, start + "queue name 'amq.mine' contains reserved prefix 'amq.*'", 50, 10,
                failing -> failing.queueDeclare("amq.mine", false, true, false, null));
        assertChannelError(403, start + "exchange name 'amq.mine' contains reserved prefix 'amq.*'", 40, 10,
                failing -> failing.exchangeDeclare("amq.mine", "direct"));
        assertChannelError(403, start + "deletion of system exchange 'amq.direct" + VHOST + " not allowed", 40, 20,
                failing -> failing.exchangeDelete("amq.direct"));
        String queue = exclusiveQueue(Map.of());
        String text = start + "operation not permitted on the default exchange";
        assertChannelError(403, text, 50, 20, failing -> failing.queueBind(queue, "", queue));
        assertChannelError(403, text, 50, 50, failing -> failing.queueUnbind(queue, "", queue));
        assertChannelError(403, text, 40, 20, failing -> failing.exchangeDelete(""));
        channel.exchangeDeclare("amq.topic", BuiltinExchangeType.TOPIC, true);
    }

    @Test
    void internalExchangesTakeNoPublishes() throws Exception {
        String internal = uniqueName("internal");
        deleteExchangeAtEnd(internal);
        channel.exchangeDeclare(internal, "fanout", true, false, true, Map.of());
        assertChannelError(403, "ACCESS_REFUSED - cannot publish to internal exchange '" + internal + VHOST, 60, 40,
                failing -> failing.basicPublish(internal, "", NO_PROPERTIES, bytes("refused")));
        String outer = exchange(BuiltinExchangeType.FANOUT, Map.of());
        String queue = exclusiveQueue(Map.of());
        channel.exchangeBind(internal, outer, "");
        channel.queueBind(queue, internal, "");
        publishConfirmed(outer, "", "through");
        assertEquals(1, drain(queue).size());
    }

    @Test
    void exclusiveQueuesBelongToTheirConnection() throws Exception {
        String queue = exclusiveQueue(Map.of());
        String text = "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '" + queue + VHOST
                + ". It could be originally declared on another connection or the exclusive property value does not"
                + " match that of the original declaration.";
        Connection other = newConnection();
        for (ChannelAction action : new ChannelAction[] {
            failing -> failing.queueDeclarePassive(queue),
            failing -> failing.queueDeclare(queue, false, true, false, null)}) {
            Channel failing = other.createChannel();
            assertChannelError(failing, 405, text, 50, 10, () -> action.run(failing));
        }
        Channel consuming = other.createChannel();
        assertChannelError(consuming, 405, text, 60, 20, () -> consume(consuming, queue));
        Channel deleting = other.createChannel();
        assertChannelError(deleting, 405, text, 50, 40, () -> deleting.queueDelete(queue));
        other.createChannel().basicPublish("", queue, NO_PROPERTIES, bytes("anyone may publish"));
        assertEquals("anyone may publish", text(awaitMessage(queue)));
    }

    @Test
    void deliveryTags() throws Exception {
        String queue = exclusiveQueue(Map.of());
        String text = "PRECONDITION_FAILED - unknown delivery tag ";
        assertChannelError(406, text + "99", 60, 80, failing -> failing.basicAck(99, false));
        assertChannelError(406, text + "99", 60, 80, failing -> failing.basicAck(99, true));
        assertChannelError(406, text + "0", 60, 80, failing -> failing.basicAck(0, false));
        assertChannelError(406, text + "7", 60, 120, failing -> failing.basicNack(7, false, true));
        assertChannelError(406, text + "7", 60, 90, failing -> failing.basicReject(7, true));
        publishConfirmed("", queue, "twice");
        assertChannelError(406, text + "1", 60, 80, failing -> {
            failing.basicGet(queue, false);
            failing.basicAck(1, false);
            failing.basicAck(1, false);
        });
    }

    @Test
    void conditionalDeletions() throws Exception {
        String used = exclusiveQueue(Map.of());
        consume(channel, used);
        assertChannelError(406, "PRECONDITION_FAILED - queue '" + used + VHOST + " in use", 50, 40,
                failing -> failing.queueDelete(used, true, false));
        String full = exclusiveQueue(Map.of());
        publishConfirmed("", full, "message");
        assertChannelError(406, "PRECONDITION_FAILED - queue '" + full + VHOST + " not empty", 50, 40,
                failing -> failing.queueDelete(full, false, true));
        String bound = exchange(BuiltinExchangeType.DIRECT, Map.of());
        channel.queueBind(full, bound, "key");
        assertChannelError(406, "PRECONDITION_FAILED - exchange '" + bound + VHOST + " in use", 40, 20,
                failing -> failing.exchangeDelete(bound, true));
        channel.queueUnbind(full, bound, "key");
        channel.exchangeDelete(bound, true);
        assertEquals(1, channel.queueDelete(full, true, false).getMessageCount());
    }

    @Test
    void refusedMessages() throws Exception {
        String queue = exclusiveQueue(Map.of());
        AMQP.BasicProperties.Builder builder = new AMQP.BasicProperties.Builder();
        assertChannelErrorStarts("PRECONDITION_FAILED - invalid expiration '-1'",
                failing -> failing.basicPublish("", queue, builder.expiration("-1").build(), bytes("refused")));
        assertChannelErrorStarts("PRECONDITION_FAILED - invalid expiration '10s'",
                failing -> failing.basicPublish("", queue, builder.expiration("10s").build(), bytes("refused")));
        AMQP.BasicProperties forged = new AMQP.BasicProperties.Builder().userId("somebody").build();
        assertChannelError(406, "PRECONDITION_FAILED - user_id property set to 'somebody' but authenticated user was '"
                        + ENDPOINT.user() + "'", 60, 40,
                failing -> failing.basicPublish("", queue, forged, bytes("refused")));
        assertChannelError(406,
                "PRECONDITION_FAILED - message size 16777217 is larger than configured max size 16777216", 60, 40,
                failing -> failing.basicPublish("", queue, NO_PROPERTIES, new byte[16_777_217]));
        assertEquals(0, channel.messageCount(queue));
    }

    @Test
    void unsupportedRequestsCloseTheConnection() throws Exception {
        String queue = sharedQueue(Map.of());
        assertConnectionError(540, "NOT_IMPLEMENTED - immediate=true", 60, 40,
                failing -> failing.basicPublish("", queue, false, true, NO_PROPERTIES, bytes("refused")));
        assertConnectionError(540, "NOT_IMPLEMENTED - requeue=false", 60, 110, failing -> failing.basicRecover(false));
        assertConnectionError(540, "NOT_IMPLEMENTED - prefetch_size!=0 (10)", 60, 10,
                failing -> failing.basicQos(10, 1, false));
        assertConnectionError(530, "NOT_ALLOWED - attempt to reuse consumer tag 'twice'", 60, 20, failing -> {
            failing.basicConsume(queue, false, "twice", new Collector(failing));
            failing.basicConsume(queue, false, "twice", new Collector(failing));
        });
    }

    @Test
    void aClosedChannelLeavesTheOthersAlone() throws Exception {
        String queue = exclusiveQueue(Map.of());
        Channel failing = connection.createChannel();
        Collector collector = consume(failing, queue);
        publish("", queue, "held");
        collector.next();
        int number = failing.getChannelNumber();
        assertChannelError(failing, 404, "NOT_FOUND - no queue 'missing" + VHOST, 50, 10,
                () -> failing.queueDeclarePassive("missing"));
        var again = awaitMessage(queue);
        assertEquals("held", text(again));
        assertTrue(again.getEnvelope().isRedeliver());
        Channel reused = connection.createChannel(number);
        assertInstanceOf(Channel.class, reused);
        assertEquals(0, reused.messageCount(queue));
    }

    /** Checks code 406 and the beginning of the text, where the rest is not fixed. */
    private void assertChannelErrorStarts(String start, ChannelAction action) throws Exception {
        Channel failing = connection.createChannel();
        var signal = shutdownSignal(failing, () -> action.run(failing));
        AMQP.Channel.Close close = assertInstanceOf(AMQP.Channel.Close.class, signal.getReason());
        assertTrue(close.getReplyText().startsWith(start), close.getReplyText());
        assertEquals(406, close.getReplyCode());
    }
}
