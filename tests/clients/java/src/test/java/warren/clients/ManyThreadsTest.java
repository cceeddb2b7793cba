package warren.clients;

import static org.junit.jupiter.api.Assertions.assertEquals;

import com.rabbitmq.client.Channel;
import com.rabbitmq.client.MessageProperties;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;

/** Many channels used at the same time. */
class ManyThreadsTest extends BrokerTest {
    private static final int CHANNELS = 100;
    private static final int THREADS = 20;
    private static final int MESSAGES_PER_CHANNEL = 50;

    @Test
    void hundredChannelsPublishWithConfirms() throws Exception {
        String queue = sharedQueue(Map.of());
        List<Channel> channels = new ArrayList<>();
        for (int index = 0; index < CHANNELS; index++) {
            channels.add(connection.createChannel());
        }
        inThreads(channels.stream().map(each -> (Action) () -> {
            each.confirmSelect();
            for (int message = 0; message < MESSAGES_PER_CHANNEL; message++) {
                each.basicPublish("", queue, MessageProperties.PERSISTENT_BASIC,
                        bytes(each.getChannelNumber() + ":" + message));
            }
            each.waitForConfirmsOrDie(30_000);
        }).toList());
        assertEquals(CHANNELS * MESSAGES_PER_CHANNEL, channel.messageCount(queue));
        assertEachChannelInOrder(drainByConsumer(queue, CHANNELS * MESSAGES_PER_CHANNEL));
    }

    @Test
    void publishersAndConsumersTogether() throws Exception {
        String queue = sharedQueue(Map.of());
        Set<String> received = ConcurrentHashMap.newKeySet();
        var consuming = newConnection();
        for (int index = 0; index < 10; index++) {
            Channel taking = consuming.createChannel();
            taking.basicQos(10);
            taking.basicConsume(queue, false, (tag, delivery) -> {
                received.add(Collector.text(delivery));
                taking.basicAck(delivery.getEnvelope().getDeliveryTag(), false);
            }, tag -> { });
        }
        List<Action> publishers = new ArrayList<>();
        for (int publisher = 0; publisher < THREADS; publisher++) {
            Channel publishing = connection.createChannel();
            publishers.add(() -> {
                publishing.confirmSelect();
                for (int message = 0; message < 100; message++) {
                    publishing.basicPublish("", queue, NO_PROPERTIES,
                            bytes(publishing.getChannelNumber() + ":" + message));
                }
                publishing.waitForConfirmsOrDie(30_000);
            });
        }
        inThreads(publishers);
        awaitTrue("every message", () -> received.size() == THREADS * 100);
        awaitTrue("every acknowledgement", () -> channel.messageCount(queue) == 0);
    }

    /** Each thread has a connection of its own that comes and goes. */
    @Test
    void connectionsComeAndGo() throws Exception {
        String queue = sharedQueue(Map.of());
        List<Action> clients = new ArrayList<>();
        for (int client = 0; client < THREADS; client++) {
            clients.add(() -> {
                try (var own = ENDPOINT.factory().newConnection()) {
                    Channel publishing = own.createChannel();
                    publishing.confirmSelect();
                    publishing.basicPublish("", queue, NO_PROPERTIES, bytes("message"));
                    publishing.waitForConfirmsOrDie(30_000);
                    publishing.queueDeclare();
                }
            });
        }
        inThreads(clients);
        assertEquals(THREADS, channel.messageCount(queue));
    }

    private List<String> drainByConsumer(String queue, int count) throws Exception {
        Channel taking = newConnection().createChannel();
        return consume(taking, queue, true, Map.of()).bodies(count);
    }

    private static void assertEachChannelInOrder(List<String> bodies) {
        Map<String, Integer> next = new ConcurrentHashMap<>();
        for (String body : bodies) {
            String[] parts = body.split(":");
            assertEquals(next.getOrDefault(parts[0], 0), Integer.valueOf(parts[1]), "channel " + parts[0]);
            next.merge(parts[0], 1, Integer::sum);
        }
        assertEquals(CHANNELS, next.size());
    }

    private static void inThreads(List<Action> actions) throws Exception {
        ExecutorService threads = Executors.newFixedThreadPool(THREADS);
        try {
            List<Future<Void>> results = new ArrayList<>();
            for (Action action : actions) {
                results.add(threads.submit(() -> {
                    action.run();
                    return null;
                }));
            }
            for (Future<Void> result : results) {
                result.get(50, TimeUnit.SECONDS);
            }
        } finally {
            threads.shutdownNow();
        }
    }
}
