package warren.clients;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Delivery;
import com.rabbitmq.client.GetResponse;
import com.rabbitmq.client.MessageProperties;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;

/** Sharing work: dispatch, prefetch, acknowledgement, redelivery. */
class WorkQueueTest extends BrokerTest {

    @Test
    void prefetchOneGivesWorkToTheWorkerThatIsFree() throws Exception {
        String queue = sharedQueue(Map.of());
        Channel busyChannel = connection.createChannel();
        Channel freeChannel = connection.createChannel();
        busyChannel.basicQos(1);
        freeChannel.basicQos(1);
        Collector busy = consume(busyChannel, queue);
        Collector free = consume(freeChannel, queue);

        publishConfirmed("", queue, "0", "1", "2", "3", "4", "5", "6", "7");
        Delivery held = busy.next();
        for (int taken = 0; taken < 7; taken++) {
            freeChannel.basicAck(free.next().getEnvelope().getDeliveryTag(), false);
        }
        busy.assertQuiet();
        free.assertQuiet();
        busyChannel.basicAck(held.getEnvelope().getDeliveryTag(), false);
        publish("", queue, "8");
        publish("", queue, "9");
        busy.next();
        free.next();
    }

    @Test
    void workersWithoutPrefetchTakeTurns() throws Exception {
        String queue = exclusiveQueue(Map.of());
        Collector first = consume(connection.createChannel(), queue, true, Map.of());
        Collector second = consume(connection.createChannel(), queue, true, Map.of());
        publishConfirmed("", queue, "0", "1", "2", "3", "4", "5");
        assertEquals(3, first.bodies(3).size());
        assertEquals(3, second.bodies(3).size());
    }

    @Test
    void unacknowledgedWorkGoesToAnotherWorkerWhenTheConnectionIsLost() throws Exception {
        String queue = sharedQueue(Map.of());
        var dying = newConnection();
        Collector lost = consume(dying.createChannel(), queue);
        channel.basicPublish("", queue, MessageProperties.PERSISTENT_TEXT_PLAIN, bytes("job"));
        assertFalse(lost.next().getEnvelope().isRedeliver());
        dying.abort();

        Delivery again = consume(channel, queue).next();
        assertTrue(again.getEnvelope().isRedeliver());
        assertEquals("job", Collector.text(again));
        channel.basicAck(again.getEnvelope().getDeliveryTag(), false);
    }

    @Test
    void multipleAcknowledgementCoversEverythingUpToTheTag() throws Exception {
        String queue = exclusiveQueue(Map.of());
        Channel worker = connection.createChannel();
        Collector collector = consume(worker, queue);
        publishConfirmed("", queue, "0", "1", "2", "3", "4");
        collector.bodies(2);
        long third = collector.next().getEnvelope().getDeliveryTag();
        assertEquals(3, third);
        collector.bodies(2);
        worker.basicAck(third, true);
        worker.close();
        assertEquals(List.of("3", "4"), drain(queue));
    }

    @Test
    void acknowledgingTagZeroCoversEverything() throws Exception {
        String queue = exclusiveQueue(Map.of());
        Channel worker = connection.createChannel();
        Collector collector = consume(worker, queue);
        worker.basicAck(0, true);
        publishConfirmed("", queue, "0", "1", "2");
        collector.bodies(3);
        worker.basicAck(0, true);
        worker.close();
        assertEquals(List.of(), drain(queue));
    }

    @Test
    void requeuedMessagesComeBackInTheirOriginalOrder() throws Exception {
        String queue = exclusiveQueue(Map.of());
        publishConfirmed("", queue, "0", "1", "2", "3");
        GetResponse first = channel.basicGet(queue, false);
        GetResponse second = channel.basicGet(queue, false);
        assertEquals(2, second.getMessageCount());
        channel.basicReject(second.getEnvelope().getDeliveryTag(), true);
        channel.basicNack(first.getEnvelope().getDeliveryTag(), false, true);

        GetResponse again = channel.basicGet(queue, true);
        assertEquals("0", text(again));
        assertTrue(again.getEnvelope().isRedeliver());
        assertEquals(List.of("1", "2", "3"), drain(queue));
    }

    @Test
    void rejectedAndNackedMessagesAreDropped() throws Exception {
        String queue = exclusiveQueue(Map.of());
        publishConfirmed("", queue, "0", "1", "2", "3");
        long first = channel.basicGet(queue, false).getEnvelope().getDeliveryTag();
        channel.basicReject(first, false);
        channel.basicGet(queue, false);
        long third = channel.basicGet(queue, false).getEnvelope().getDeliveryTag();
        channel.basicNack(third, true, false);
        assertEquals(List.of("3"), drain(queue));
    }

    @Test
    void getCountsWhatIsLeft() throws Exception {
        String queue = exclusiveQueue(Map.of());
        assertNull(channel.basicGet(queue, true));
        publishConfirmed("", queue, "first", "second");
        GetResponse first = channel.basicGet(queue, true);
        assertEquals("first", text(first));
        assertEquals(1, first.getMessageCount());
        assertEquals("", first.getEnvelope().getExchange());
        assertEquals(queue, first.getEnvelope().getRoutingKey());
        assertFalse(first.getEnvelope().isRedeliver());
        assertEquals(0, channel.basicGet(queue, true).getMessageCount());
        assertNull(channel.basicGet(queue, true));
    }

    @Test
    void recoverRequeuesWhatTheChannelHolds() throws Exception {
        String queue = exclusiveQueue(Map.of());
        Collector collector = consume(channel, queue);
        publish("", queue, "again");
        assertFalse(collector.next().getEnvelope().isRedeliver());
        channel.basicRecover(true);
        Delivery second = collector.next();
        assertEquals("again", Collector.text(second));
        assertTrue(second.getEnvelope().isRedeliver());
        assertEquals(2, second.getEnvelope().getDeliveryTag());
        channel.basicAck(2, false);
        channel.basicRecover();
        collector.assertQuiet();
    }

    @Test
    void prefetchAppliesToEachLaterConsumer() throws Exception {
        String queue = exclusiveQueue(Map.of());
        publishConfirmed("", queue, "0", "1", "2", "3", "4");
        channel.basicQos(2);
        Collector two = consume(channel, queue);
        channel.basicQos(1);
        Collector one = consume(channel, queue);
        assertEquals(List.of("0", "1"), two.bodies(2));
        assertEquals(List.of("2"), one.bodies(1));
        two.assertQuiet();
        one.assertQuiet();
    }

    @Test
    void globalPrefetchIsSharedByTheChannel() throws Exception {
        onlyWarren("RabbitMQ 4.3 treats a global prefetch as one per consumer");
        String queue = exclusiveQueue(Map.of());
        publishConfirmed("", queue, "0", "1", "2", "3", "4", "5");
        channel.basicQos(3, true);
        Collector first = consume(channel, queue);
        assertEquals(List.of("0", "1", "2"), first.bodies(3));
        Collector second = consume(channel, queue);
        first.assertQuiet();
        second.assertQuiet();
        channel.basicAck(3, true);
        awaitTrue("three more deliveries", () -> channel.messageCount(queue) == 0);
    }
}
