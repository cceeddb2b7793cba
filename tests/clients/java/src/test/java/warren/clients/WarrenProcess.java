package warren.clients;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assertions.fail;

import java.io.BufferedReader;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** A broker of a test's own, for tests that stop and start it. */
final class WarrenProcess implements AutoCloseable {
    private static final Pattern READY = Pattern.compile("^ready .*\\bamqp=([0-9.]+):([0-9]+)");
    private static final long START_SECONDS = 60;
    private static final long STOP_SECONDS = 30;

    private final Path folder;
    private Process process;
    private Endpoint endpoint = new Endpoint("127.0.0.1", 0, "guest", "guest", "/");

    /** Starts the broker named by {@code TEST_WARREN_BIN} on a free port. */
    WarrenProcess() throws Exception {
        folder = Files.createTempDirectory("warren-java");
        start();
    }

    Endpoint endpoint() {
        return endpoint;
    }

    /** Starts the broker; after the first time on the same port again. */
    void start() throws Exception {
        process = new ProcessBuilder(List.of(System.getenv("TEST_WARREN_BIN"), "serve",
                "--data-dir", folder.resolve("data").toString(), "--amqp-port", Integer.toString(endpoint.port()),
                "--management-port", "-1", "--prometheus-port", "-1"))
                .redirectError(ProcessBuilder.Redirect.appendTo(folder.resolve("log").toFile()))
                .start();
        CompletableFuture<Matcher> ready = new CompletableFuture<>();
        Thread reader = new Thread(() -> readOutput(process, ready), "broker-output");
        reader.setDaemon(true);
        reader.start();
        Matcher listener = ready.get(START_SECONDS, TimeUnit.SECONDS);
        endpoint = new Endpoint(listener.group(1), Integer.parseInt(listener.group(2)), "guest", "guest", "/");
    }

    /** Reads until the process ends, so that it never waits for a full pipe. */
    private void readOutput(Process started, CompletableFuture<Matcher> ready) {
        try (BufferedReader output = started.inputReader()) {
            for (String line = output.readLine(); line != null; line = output.readLine()) {
                Matcher matcher = READY.matcher(line);
                if (matcher.find()) {
                    ready.complete(matcher);
                }
            }
            ready.completeExceptionally(new IOException("the broker ended: " + Files.readString(folder.resolve("log"))));
        } catch (IOException failed) {
            ready.completeExceptionally(failed);
        }
    }

    /** Stops the broker with SIGTERM, which it must obey with exit code 0. */
    void stop() throws Exception {
        process.destroy();
        if (!process.waitFor(STOP_SECONDS, TimeUnit.SECONDS)) {
            process.destroyForcibly();
            fail("the broker did not stop: " + Files.readString(folder.resolve("log")));
        }
        assertEquals(0, process.exitValue(), () -> "exit code of the broker; its log is in " + folder);
    }

    void restart() throws Exception {
        stop();
        start();
    }

    /** Ends the broker at once, as a crash does. */
    void kill() throws InterruptedException {
        process.destroyForcibly();
        assertTrue(process.waitFor(STOP_SECONDS, TimeUnit.SECONDS), "the broker outlived SIGKILL");
    }

    @Override
    public void close() throws Exception {
        if (process.isAlive()) {
            stop();
        }
        try (var files = Files.walk(folder)) {
            files.sorted(java.util.Comparator.reverseOrder()).forEach(file -> file.toFile().delete());
        }
    }
}
