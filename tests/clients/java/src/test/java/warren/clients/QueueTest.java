package warren.clients;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.BuiltinExchangeType;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.Return;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Test;

/** Declaring, counting, emptying and deleting queues and exchanges. */
class QueueTest extends BrokerTest {
    private static final String VHOST = "' in vhost '" + ENDPOINT.virtualHost() + "'";

    @Test
    void theServerNamesQueues() throws Exception {
        String first = channel.queueDeclare().getQueue();
        String second = channel.queueDeclare().getQueue();
        assertTrue(first.matches("amq\\.gen-[A-Za-z0-9_-]{22}"), first);
        assertNotEquals(first, second);
        // An empty name stands for the queue declared last on the channel.
        publishConfirmed("", second, "message");
        assertEquals("message", text(channel.basicGet("", true)));
        channel.queueBind("", "amq.direct", "");
        publishConfirmed("amq.direct", second, "bound by its name");
        assertEquals(List.of("bound by its name"), drain(second));
    }

    @Test
    void passiveDeclarationsCount() throws Exception {
        String queue = sharedQueue(Map.of());
        publishConfirmed("", queue, "0", "1", "2");
        channel.basicGet(queue, false);
        AMQP.Queue.DeclareOk counted = channel.queueDeclarePassive(queue);
        assertEquals(queue, counted.getQueue());
        assertEquals(2, counted.getMessageCount());
        assertEquals(0, counted.getConsumerCount());
        channel.basicQos(1);
        consume(channel, queue);
        AMQP.Queue.DeclareOk again = channel.queueDeclare(queue, true, false, false, null);
        assertEquals(1, again.getConsumerCount());
        channel.exchangeDeclarePassive("amq.direct");
    }

    @Test
    void purgeAndDeleteCountReadyMessages() throws Exception {
        String queue = sharedQueue(Map.of());
        publishConfirmed("", queue, "0", "1", "2");
        channel.basicGet(queue, false);
        assertEquals(2, channel.queuePurge(queue).getMessageCount());
        assertEquals(0, channel.queuePurge(queue).getMessageCount());
        channel.basicNack(1, false, true);
        assertEquals(List.of("0"), drain(queue));
        publishConfirmed("", queue, "3", "4");
        assertEquals(2, channel.queueDelete(queue).getMessageCount());
        assertEquals(0, channel.queueDelete(queue).getMessageCount());
        channel.exchangeDelete(uniqueName("never-declared"));
    }

    @Test
    void exclusiveQueuesGoWithTheirConnection() throws Exception {
        Connection owner = newConnection();
        String queue = uniqueName("exclusive");
        owner.createChannel().queueDeclare(queue, false, true, false, null);
        owner.close();
        assertGone(queue);
    }

    @Test
    void autoDeleteQueuesGoWithTheirLastConsumer() throws Exception {
        String queue = uniqueName("auto-delete");
        deleteQueueAtEnd(queue);
        channel.queueDeclare(queue, true, false, true, null);
        publishConfirmed("", queue, "got without a consumer");
        assertEquals(1, drain(queue).size());
        String first = channel.basicConsume(queue, new Collector(channel));
        Channel second = connection.createChannel();
        consume(second, queue);
        channel.basicCancel(first);
        assertEquals(1, channel.consumerCount(queue));
        second.close();
        awaitGone(queue);
    }

    @Test
    void autoDeleteExchangesGoWithTheirLastBinding() throws Exception {
        String exchange = uniqueName("auto-delete");
        deleteExchangeAtEnd(exchange);
        channel.exchangeDeclare(exchange, BuiltinExchangeType.DIRECT, true, true, null);
        String first = exclusiveQueue(Map.of());
        channel.queueBind(first, exchange, "a");
        channel.queueBind(first, exchange, "b");
        channel.queueUnbind(first, exchange, "a");
        channel.exchangeDeclarePassive(exchange);
        channel.queueDelete(first);
        assertChannelError(404, "NOT_FOUND - no exchange '" + exchange + VHOST, 40, 10,
                failing -> failing.exchangeDeclarePassive(exchange));
    }

    @Test
    void transientSharedQueues() throws Exception {
        onlyWarren("RabbitMQ 4.3 refuses transient queues that are not exclusive");
        String queue = uniqueName("transient");
        deleteQueueAtEnd(queue);
        channel.queueDeclare(queue, false, false, false, null);
        publishConfirmed("", queue, "message");
        Channel other = newConnection().createChannel();
        assertEquals("message", text(other.basicGet(queue, true)));
    }

    @Test
    void unusedQueuesExpire() throws Exception {
        String queue = exclusiveQueue(Map.of("x-expires", 100));
        awaitGone(queue);
    }

    @Test
    void requestsWithoutAnswer() throws Exception {
        String queue = uniqueName("no-wait");
        String exchange = uniqueName("no-wait");
        deleteQueueAtEnd(queue);
        deleteExchangeAtEnd(exchange);
        channel.queueDeclareNoWait(queue, true, false, false, null);
        channel.exchangeDeclareNoWait(exchange, BuiltinExchangeType.FANOUT, true, false, false, null);
        channel.queueBindNoWait(queue, exchange, "", null);
        publishConfirmed(exchange, "", "message");
        assertEquals(List.of("message"), drain(queue));
        channel.exchangeDeleteNoWait(exchange, false);
        channel.queueDeleteNoWait(queue, false, false);
        assertChannelError(channel, 404, "NOT_FOUND - no queue '" + queue + VHOST, 50, 10,
                () -> channel.queueDeclarePassive(queue));
    }

    @Test
    void namesMayHoldAnyText() throws Exception {
        for (String name : List.of("java with spaces/and slashes", "java-" + "ü".repeat(125), "java-日本語")) {
            deleteQueueAtEnd(name);
            channel.queueDeclare(name, true, false, false, null);
            publishConfirmed("", name, name);
            assertEquals(List.of(name), drain(name));
        }
    }

    /** Probes with mandatory messages: they do not count as use, and a return tells that the queue is gone. */
    private void awaitGone(String queue) throws Exception {
        AtomicInteger returns = new AtomicInteger();
        channel.confirmSelect();
        channel.addReturnListener((Return message) -> returns.incrementAndGet());
        awaitTrue("the queue to go", () -> {
            channel.basicPublish("", queue, true, NO_PROPERTIES, bytes("probe"));
            // Either outcome will do for a probe that meets the queue on its way out.
            channel.waitForConfirms(DEADLINE.toMillis());
            return returns.get() > 0;
        });
        assertGone(queue);
    }

    private void assertGone(String queue) throws Exception {
        assertChannelError(404, "NOT_FOUND - no queue '" + queue + VHOST, 50, 10,
                failing -> failing.queueDeclarePassive(queue));
    }
}
