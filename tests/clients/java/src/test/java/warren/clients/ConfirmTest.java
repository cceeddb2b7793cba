package warren.clients;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.BuiltinExchangeType;
import com.rabbitmq.client.ConfirmListener;
import com.rabbitmq.client.MessageProperties;
import com.rabbitmq.client.Return;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.ConcurrentSkipListSet;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;
import org.junit.jupiter.api.Test;

/** Publisher confirms, returns and refusals. */
class ConfirmTest extends BrokerTest {

    @Test
    void waitForConfirms() throws Exception {
        String queue = exclusiveQueue(Map.of());
        assertEquals(0, channel.getNextPublishSeqNo());
        channel.confirmSelect();
        channel.confirmSelect();
        assertEquals(1, channel.getNextPublishSeqNo());
        for (int sequence = 1; sequence <= 200; sequence++) {
            channel.basicPublish("", queue, MessageProperties.PERSISTENT_BASIC, bytes("message"));
        }
        assertEquals(201, channel.getNextPublishSeqNo());
        assertTrue(channel.waitForConfirms(DEADLINE.toMillis()));
        assertEquals(200, channel.messageCount(queue));
    }

    @Test
    void asynchronousConfirmsCoverEveryMessageOnce() throws Exception {
        int messages = 2000;
        String queue = sharedQueue(Map.of());
        ConcurrentSkipListSet<Long> outstanding = new ConcurrentSkipListSet<>();
        AtomicReference<String> problem = new AtomicReference<>();
        channel.confirmSelect();
        channel.addConfirmListener((tag, multiple) -> {
            // The client hands a multiple confirm on as one call: it covers every outstanding message up to the tag.
            var covered = outstanding.headSet(tag, true);
            if (!outstanding.contains(tag)) {
                problem.compareAndSet(null, "confirmed twice or never published: " + tag);
            }
            if (multiple) {
                covered.clear();
            } else {
                outstanding.remove(tag);
            }
        }, (tag, multiple) -> problem.compareAndSet(null, "nacked: " + tag));
        for (int count = 0; count < messages; count++) {
            outstanding.add(channel.getNextPublishSeqNo());
            channel.basicPublish("", queue, MessageProperties.PERSISTENT_BASIC, bytes("message"));
        }
        awaitTrue("every confirm", outstanding::isEmpty);
        assertEquals(null, problem.get());
        assertEquals(messages, channel.messageCount(queue));
    }

    @Test
    void mandatoryMessagesReturnBeforeTheirConfirm() throws Exception {
        BlockingQueue<String> events = new LinkedBlockingQueue<>();
        AtomicReference<Return> returned = new AtomicReference<>();
        channel.confirmSelect();
        channel.addConfirmListener((tag, multiple) -> events.add("ack " + tag), (tag, multiple) -> events.add("nack"));
        channel.addReturnListener((Return message) -> {
            returned.set(message);
            events.add("return");
        });
        AMQP.BasicProperties properties = new AMQP.BasicProperties.Builder()
                .messageId("unroutable").headers(Map.of("number", 7)).build();
        byte[] body = new byte[300_000];
        body[299_999] = 1;
        channel.basicPublish("amq.direct", "nobody.is.bound", true, properties, body);
        assertEquals("return", events.poll(10, TimeUnit.SECONDS));
        assertEquals("ack 1", events.poll(10, TimeUnit.SECONDS));
        Return message = returned.get();
        assertEquals(312, message.getReplyCode());
        assertEquals("NO_ROUTE", message.getReplyText());
        assertEquals("amq.direct", message.getExchange());
        assertEquals("nobody.is.bound", message.getRoutingKey());
        assertEquals("unroutable", message.getProperties().getMessageId());
        assertEquals(Map.of("number", 7), message.getProperties().getHeaders());
        assertArrayEquals(body, message.getBody());
    }

    @Test
    void unroutableMessagesAreConfirmed() throws Exception {
        channel.addReturnListener((Return message) -> {
            throw new AssertionError("returned although not mandatory");
        });
        publishConfirmed("", uniqueName("nobody"), "dropped");
        publishConfirmed("amq.fanout", "", "dropped");
        assertTrue(channel.isOpen());
    }

    @Test
    void mandatoryRoutedMessagesDoNotReturn() throws Exception {
        String queue = exclusiveQueue(Map.of());
        List<Return> returns = new ArrayList<>();
        channel.addReturnListener((Return message) -> returns.add(message));
        channel.confirmSelect();
        channel.basicPublish("", queue, true, NO_PROPERTIES, bytes("routed"));
        assertTrue(channel.waitForConfirms(DEADLINE.toMillis()));
        assertEquals(List.of(), returns);
        assertEquals(List.of("routed"), drain(queue));
    }

    @Test
    void rejectPublishNacksWhatDoesNotFit() throws Exception {
        String queue = exclusiveQueue(Map.of("x-max-length", 2, "x-overflow", "reject-publish"));
        channel.confirmSelect();
        Outcomes outcomes = new Outcomes();
        channel.addConfirmListener(outcomes);
        for (String body : List.of("0", "1", "2", "3")) {
            publish("", queue, body);
            assertNotNull(outcomes.last.poll(10, TimeUnit.SECONDS));
        }
        assertEquals(List.of("ack 1", "ack 2", "nack 3", "nack 4"), outcomes.all);
        assertFalse(channel.waitForConfirms(DEADLINE.toMillis()));
        assertEquals(List.of("0", "1"), drain(queue));
        publish("", queue, "4");
        assertTrue(channel.waitForConfirms(DEADLINE.toMillis()));
    }

    @Test
    void oneFullQueueNacksTheMessageThatAnotherQueueKeeps() throws Exception {
        String fanout = exchange(BuiltinExchangeType.FANOUT, Map.of());
        String full = exclusiveQueue(Map.of("x-max-length", 0, "x-overflow", "reject-publish"));
        String roomy = exclusiveQueue(Map.of());
        channel.queueBind(full, fanout, "");
        channel.queueBind(roomy, fanout, "");
        channel.confirmSelect();
        publish(fanout, "", "half");
        assertFalse(channel.waitForConfirms(DEADLINE.toMillis()));
        assertEquals(List.of(), drain(full));
        assertEquals(List.of("half"), drain(roomy));
    }

    @Test
    void dropHeadKeepsTheNewestAndConfirmsAll() throws Exception {
        String queue = exclusiveQueue(Map.of("x-max-length", 2));
        publishConfirmed("", queue, "0", "1", "2", "3");
        assertEquals(List.of("2", "3"), drain(queue));
        String small = exclusiveQueue(Map.of("x-max-length-bytes", 10));
        publishConfirmed("", small, "12345", "67890", "abcde", "longer than the limit");
        assertEquals(List.of(), drain(small));
        publishConfirmed("", small, "12345", "67890", "abcde");
        assertEquals(List.of("67890", "abcde"), drain(small));
    }

    /** The outcomes as they come, one by one. */
    private static final class Outcomes implements ConfirmListener {
        final List<String> all = new ArrayList<>();
        final BlockingQueue<String> last = new LinkedBlockingQueue<>();

        @Override
        public void handleAck(long tag, boolean multiple) {
            add("ack " + tag);
        }

        @Override
        public void handleNack(long tag, boolean multiple) {
            add("nack " + tag);
        }

        private void add(String outcome) {
            all.add(outcome);
            last.add(outcome);
        }
    }
}
