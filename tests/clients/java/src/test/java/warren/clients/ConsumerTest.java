package warren.clients;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Delivery;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;

/** The life of consumers: tags, cancellation, priority, exclusivity, one active among many. */
class ConsumerTest extends BrokerTest {

    @Test
    void serverChoosesTheTag() throws Exception {
        String queue = exclusiveQueue(Map.of());
        Collector collector = consume(channel, queue);
        String tag = collector.consumeOk.get(10, TimeUnit.SECONDS);
        assertTrue(tag.startsWith("amq.ctag-"), tag);
        assertEquals(1, channel.consumerCount(queue));
        publish("", queue, "tagged");
        collector.next();
        channel.basicCancel(tag);
        assertEquals(tag, collector.cancelOk.get(10, TimeUnit.SECONDS));
        assertEquals(0, channel.consumerCount(queue));
        channel.basicAck(1, false);
        publishConfirmed("", queue, "kept in the queue");
        assertEquals(List.of("kept in the queue"), drain(queue));
    }

    @Test
    void theBrokerCancelsConsumersOfADeletedQueue() throws Exception {
        String queue = exclusiveQueue(Map.of());
        Collector collector = new Collector(channel);
        channel.basicConsume(queue, false, "chosen", collector);
        CompletableFuture<String> callback = new CompletableFuture<>();
        Channel second = connection.createChannel();
        String callbackTag = second.basicConsume(queue, true, (tag, delivery) -> { }, callback::complete);
        connection.createChannel().queueDelete(queue);
        assertEquals("chosen", collector.cancelled.get(10, TimeUnit.SECONDS));
        assertEquals(callbackTag, callback.get(10, TimeUnit.SECONDS));
        assertFalse(collector.cancelOk.isDone());
        // The channels and the tag are free for more.
        String next = exclusiveQueue(Map.of());
        channel.basicConsume(next, false, "chosen", new Collector(channel));
        assertTrue(second.isOpen());
    }

    @Test
    void higherPriorityConsumersComeFirst() throws Exception {
        String queue = exclusiveQueue(Map.of());
        Channel lowChannel = connection.createChannel();
        Channel highChannel = connection.createChannel();
        highChannel.basicQos(2);
        Collector low = consume(lowChannel, queue, false, Map.of("x-priority", -3));
        Collector high = consume(highChannel, queue, false, Map.of("x-priority", 10));
        publishConfirmed("", queue, "0", "1", "2");
        assertEquals(List.of("0", "1"), high.bodies(2));
        assertEquals(List.of("2"), low.bodies(1));
        highChannel.basicAck(2, true);
        publishConfirmed("", queue, "3");
        assertEquals(List.of("3"), high.bodies(1));
        low.assertQuiet();
    }

    @Test
    void oneConsumerIsActive() throws Exception {
        String queue = sharedQueue(Map.of("x-single-active-consumer", true));
        Channel firstChannel = connection.createChannel();
        Collector first = consume(firstChannel, queue);
        Channel secondChannel = newConnection().createChannel();
        Collector second = consume(secondChannel, queue);
        publishConfirmed("", queue, "0", "1", "2");
        assertEquals(List.of("0", "1", "2"), first.bodies(3));
        second.assertQuiet();
        firstChannel.basicAck(2, true);
        firstChannel.close();
        Delivery taken = second.next();
        assertEquals("2", Collector.text(taken));
        assertTrue(taken.getEnvelope().isRedeliver());
        publishConfirmed("", queue, "3");
        assertEquals(List.of("3"), second.bodies(1));
    }

    @Test
    void exclusiveConsumersHaveTheQueueAlone() throws Exception {
        String queue = exclusiveQueue(Map.of());
        String inUse = "ACCESS_REFUSED - queue '" + queue + "' in vhost '" + ENDPOINT.virtualHost()
                + "' in exclusive use";
        String tag = channel.basicConsume(queue, true, "", false, true, null, new Collector(channel));
        assertChannelError(403, inUse, 60, 20, second -> consume(second, queue));
        channel.basicCancel(tag);
        consume(channel, queue);
        assertChannelError(403, inUse, 60, 20,
                second -> second.basicConsume(queue, true, "", false, true, null, new Collector(second)));
    }

    @Test
    void autoAckDeliveriesNeedNoAcknowledgement() throws Exception {
        String queue = exclusiveQueue(Map.of());
        Channel taking = connection.createChannel();
        Collector collector = consume(taking, queue, true, Map.of());
        publishConfirmed("", queue, "0", "1");
        assertEquals(List.of("0", "1"), collector.bodies(2));
        taking.close();
        assertEquals(List.of(), drain(queue));
    }

    @Test
    void prioritiesOfMessages() throws Exception {
        String queue = exclusiveQueue(Map.of("x-max-priority", 5));
        channel.confirmSelect();
        publish("", queue, "none");
        for (int priority : List.of(1, 5, 0, 3, 9, 3)) {
            publish("", queue, new AMQP.BasicProperties.Builder().priority(priority).build(), "p" + priority);
        }
        channel.waitForConfirmsOrDie(DEADLINE.toMillis());
        assertEquals(List.of("p5", "p9", "p3", "p3", "p1", "none", "p0"), drain(queue));
    }

    @Test
    void manyConsumersOnOneChannel() throws Exception {
        String queue = exclusiveQueue(Map.of());
        List<Collector> collectors = new java.util.ArrayList<>();
        for (int index = 0; index < 20; index++) {
            Collector collector = new Collector(channel);
            channel.basicConsume(queue, true, "consumer-" + index, collector);
            collectors.add(collector);
        }
        assertEquals(20, channel.consumerCount(queue));
        for (int message = 0; message < 40; message++) {
            publish("", queue, "message");
        }
        for (Collector collector : collectors) {
            assertEquals(2, collector.bodies(2).size());
        }
    }
}
