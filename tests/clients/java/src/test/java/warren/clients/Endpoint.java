package warren.clients;

import com.rabbitmq.client.ConnectionFactory;
import java.net.URI;
import java.net.URLDecoder;
import java.nio.charset.StandardCharsets;

/** Where the broker under test listens and who logs in. */
record Endpoint(String host, int port, String user, String password, String virtualHost) {

    /** The endpoint the {@code run} script names in {@code TEST_AMQP_URL}. */
    static Endpoint fromEnvironment() {
        String url = System.getenv("TEST_AMQP_URL");
        if (url == null) {
            throw new IllegalStateException("TEST_AMQP_URL is not set: start the tests with ./run");
        }
        return parse(URI.create(url));
    }

    /** An AMQP URL whose path {@code /} or none means the default virtual host. */
    private static Endpoint parse(URI url) {
        String[] credentials = (url.getRawUserInfo() == null ? "guest:guest" : url.getRawUserInfo()).split(":", 2);
        String path = url.getRawPath() == null ? "" : url.getRawPath();
        String virtualHost = path.length() <= 1 ? "/" : decode(path.substring(1));
        int port = url.getPort() < 0 ? ConnectionFactory.DEFAULT_AMQP_PORT : url.getPort();
        return new Endpoint(url.getHost(), port, decode(credentials[0]), decode(credentials[1]), virtualHost);
    }

    private static String decode(String text) {
        return URLDecoder.decode(text, StandardCharsets.UTF_8);
    }

    /** A factory for plain connections: nothing is recovered behind the test's back. */
    ConnectionFactory factory() {
        ConnectionFactory factory = new ConnectionFactory();
        factory.setHost(host);
        factory.setPort(port);
        factory.setUsername(user);
        factory.setPassword(password);
        factory.setVirtualHost(virtualHost);
        factory.setAutomaticRecoveryEnabled(false);
        factory.setTopologyRecoveryEnabled(false);
        return factory;
    }
}
