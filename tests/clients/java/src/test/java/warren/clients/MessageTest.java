package warren.clients;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.GetResponse;
import com.rabbitmq.client.impl.LongStringHelper;
import java.math.BigDecimal;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Date;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import org.junit.jupiter.api.Test;

/** Properties, headers and bodies arrive as they were sent. */
class MessageTest extends BrokerTest {

    @Test
    void everyProperty() throws Exception {
        AMQP.BasicProperties sent = new AMQP.BasicProperties.Builder()
                .contentType("application/json").contentEncoding("gzip").headers(Map.of("a", 1))
                .deliveryMode(2).priority(9).correlationId("correlation").replyTo("reply.queue").expiration("60000")
                .messageId("message-1").timestamp(new Date(1_700_000_000_000L)).type("kind").userId(ENDPOINT.user())
                .appId("application").clusterId("cluster").build();
        assertEquals(sent, roundTrip(sent, bytes("body")).getProps());
        assertEquals(NO_PROPERTIES, roundTrip(NO_PROPERTIES, bytes("body")).getProps());
        AMQP.BasicProperties odd = new AMQP.BasicProperties.Builder()
                .deliveryMode(0).priority(255).contentType("").messageId("x".repeat(255)).build();
        assertEquals(odd, roundTrip(odd, bytes("body")).getProps());
    }

    @Test
    void everyHeaderType() throws Exception {
        Map<String, Object> sent = new HashMap<>();
        sent.put("string", LongStringHelper.asLongString("text with ümlaut"));
        sent.put("empty", LongStringHelper.asLongString(""));
        sent.put("long string", LongStringHelper.asLongString("x".repeat(70_000)));
        sent.put("int", Integer.MIN_VALUE);
        sent.put("long", Long.MAX_VALUE);
        sent.put("short", Short.MIN_VALUE);
        sent.put("byte", Byte.MIN_VALUE);
        sent.put("true", true);
        sent.put("false", false);
        sent.put("float", 1.5f);
        sent.put("double", Math.PI);
        sent.put("decimal", new BigDecimal("12345.67"));
        sent.put("timestamp", new Date(1_700_000_000_000L));
        sent.put("null", null);
        Map<String, Object> table = new HashMap<>();
        table.put("inner", Map.of("deepest", List.of(Map.of("k", 1L), true)));
        table.put("nothing", null);
        sent.put("table", table);
        sent.put("empty table", Map.of());
        sent.put("array", new ArrayList<>(Arrays.asList(1, 2L, LongStringHelper.asLongString("three"), null, false,
                List.of(), Map.of())));
        AMQP.BasicProperties properties = new AMQP.BasicProperties.Builder().headers(sent).build();
        GetResponse received = roundTrip(properties, bytes("body"));
        assertEquals(sent, received.getProps().getHeaders());

        byte[] binary = {0, 1, (byte) 0xFF, (byte) 0xCE, 65};
        AMQP.BasicProperties withBinary =
                new AMQP.BasicProperties.Builder().headers(Map.of("binary", binary)).build();
        assertArrayEquals(binary,
                (byte[]) roundTrip(withBinary, bytes("body")).getProps().getHeaders().get("binary"));
    }

    @Test
    void manyHeaders() throws Exception {
        Map<String, Object> sent = new HashMap<>();
        for (int index = 0; index < 1000; index++) {
            sent.put("header-" + index, index);
        }
        sent.put("k".repeat(255), 1);
        AMQP.BasicProperties properties = new AMQP.BasicProperties.Builder().headers(sent).build();
        assertEquals(sent, roundTrip(properties, new byte[0]).getProps().getHeaders());
    }

    @Test
    void bodiesAroundTheFrameSize() throws Exception {
        int payload = connection.getFrameMax() - 8;
        assertTrue(payload > 0, "no frame size was negotiated");
        for (int size : new int[] {0, 1, payload - 1, payload, payload + 1, 2 * payload, 2 * payload + 1}) {
            byte[] body = randomBody(size);
            assertArrayEquals(body, roundTrip(NO_PROPERTIES, body).getBody(), "size " + size);
        }
    }

    @Test
    void fiveMebibytes() throws Exception {
        byte[] body = randomBody(5 * 1024 * 1024);
        String queue = sharedQueue(Map.of());
        Collector collector = consume(newConnection().createChannel(), queue, true, Map.of());
        for (int repeat = 0; repeat < 3; repeat++) {
            channel.basicPublish("", queue, NO_PROPERTIES, body);
        }
        publish("", queue, "small");
        for (int repeat = 0; repeat < 3; repeat++) {
            assertArrayEquals(body, collector.next().getBody());
        }
        assertEquals(List.of("small"), collector.bodies(1));
    }

    /** The largest body the default limit lets through. */
    @Test
    void sixteenMebibytes() throws Exception {
        byte[] body = randomBody(16 * 1024 * 1024);
        assertArrayEquals(body, roundTrip(NO_PROPERTIES, body).getBody());
    }

    private GetResponse roundTrip(AMQP.BasicProperties properties, byte[] body) throws Exception {
        String queue = exclusiveQueue(Map.of());
        channel.basicPublish("", queue, properties, body);
        GetResponse response = awaitMessage(queue);
        channel.queueDelete(queue);
        return response;
    }

    private static byte[] randomBody(int size) {
        byte[] body = new byte[size];
        new Random(size).nextBytes(body);
        return body;
    }
}
