package warren.clients;

import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;

import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.DefaultConsumer;
import com.rabbitmq.client.Delivery;
import com.rabbitmq.client.Envelope;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/** A consumer that keeps what it is given. */
final class Collector extends DefaultConsumer {
    /** How long a delivery that must come may take. */
    private static final long DEADLINE_MILLISECONDS = 10_000;

    /** How long to look for a delivery that must not come. */
    private static final long QUIET_MILLISECONDS = 150;

    final CompletableFuture<String> consumeOk = new CompletableFuture<>();
    final CompletableFuture<String> cancelOk = new CompletableFuture<>();
    /** Completed when the broker cancels the consumer. */
    final CompletableFuture<String> cancelled = new CompletableFuture<>();
    private final BlockingQueue<Delivery> deliveries = new LinkedBlockingQueue<>();

    Collector(Channel channel) {
        super(channel);
    }

    @Override
    public void handleConsumeOk(String consumerTag) {
        super.handleConsumeOk(consumerTag);
        consumeOk.complete(consumerTag);
    }

    @Override
    public void handleCancelOk(String consumerTag) {
        cancelOk.complete(consumerTag);
    }

    @Override
    public void handleCancel(String consumerTag) {
        cancelled.complete(consumerTag);
    }

    @Override
    public void handleDelivery(String consumerTag, Envelope envelope, AMQP.BasicProperties properties, byte[] body) {
        deliveries.add(new Delivery(envelope, properties, body));
    }

    /** The next delivery; fails when none comes in time. */
    Delivery next() throws InterruptedException {
        Delivery delivery = deliveries.poll(DEADLINE_MILLISECONDS, TimeUnit.MILLISECONDS);
        assertNotNull(delivery, "no delivery came");
        return delivery;
    }

    /** The bodies of the next deliveries. */
    List<String> bodies(int count) throws InterruptedException {
        List<String> bodies = new ArrayList<>();
        while (bodies.size() < count) {
            bodies.add(text(next()));
        }
        return bodies;
    }

    /** Fails when a delivery is there or comes at once. */
    void assertQuiet() throws InterruptedException {
        Delivery delivery = deliveries.poll(QUIET_MILLISECONDS, TimeUnit.MILLISECONDS);
        assertNull(delivery, () -> "unexpected delivery: " + text(delivery));
    }

    static String text(Delivery delivery) {
        return new String(delivery.getBody(), StandardCharsets.UTF_8);
    }
}
