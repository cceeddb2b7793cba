package clients

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	startupDeadline  = 10 * time.Second
	shutdownDeadline = 15 * time.Second
	defaultBinary    = "../../../target/release/warren"
)

// broker is a Warren process the tests started.
type broker struct {
	port      int
	directory string
	command   *exec.Cmd
	exited    chan struct{}
}

// startBroker starts Warren on a free port, with nothing in it, and returns once it printed its ready line.
func startBroker() (*broker, error) {
	directory, err := os.MkdirTemp("", "warren-go-")
	if err != nil {
		return nil, err
	}
	b := &broker{directory: directory}
	if err := b.start(); err != nil {
		b.remove()
		return nil, err
	}
	return b, nil
}

// start starts Warren with what its directory has, on the port it had before.
func (b *broker) start() error {
	err := b.launch()
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, b.log())
	}
	return err
}

func (b *broker) launch() error {
	b.exited = make(chan struct{})
	binary := os.Getenv("WARREN_BIN")
	if binary == "" {
		binary = defaultBinary
	}
	data := filepath.Join(b.directory, "data")
	log, err := os.OpenFile(b.logFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	b.command = exec.Command(binary, "serve", "--data-dir", data, "--amqp-port", strconv.Itoa(b.port),
		"--management-port", "-1", "--prometheus-port", "-1")
	b.command.Stderr = log
	stdout, err := b.command.StdoutPipe()
	if err != nil {
		return err
	}
	if err := b.command.Start(); err != nil {
		b.command = nil
		return err
	}
	ready := make(chan string, 1)
	command, exited := b.command, b.exited
	go func() {
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			if strings.HasPrefix(lines.Text(), "ready ") {
				ready <- lines.Text()
			}
		}
		_ = command.Wait()
		close(exited)
	}()
	select {
	case line := <-ready:
		return b.readPort(line)
	case <-b.exited:
		return fmt.Errorf("the broker ended before it was ready: %s", b.command.ProcessState)
	case <-time.After(startupDeadline):
		return errors.New("no ready line from the broker")
	}
}

func (b *broker) readPort(line string) error {
	for _, word := range strings.Fields(line) {
		if address, found := strings.CutPrefix(word, "amqp="); found {
			_, port, err := net.SplitHostPort(address)
			if err != nil {
				return err
			}
			b.port, err = strconv.Atoi(port)
			return err
		}
	}
	return fmt.Errorf("no AMQP listener in the ready line: %s", line)
}

func (b *broker) url() string {
	return fmt.Sprintf("amqp://guest:guest@127.0.0.1:%d/", b.port)
}

// stop sends SIGTERM and fails unless the broker ends with exit code 0.
func (b *broker) stop() error {
	defer b.kill()
	if err := b.command.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-b.exited:
	case <-time.After(shutdownDeadline):
		return errors.New("the broker did not stop after SIGTERM")
	}
	if !b.command.ProcessState.Success() {
		return fmt.Errorf("after SIGTERM the broker ended with %s\n%s", b.command.ProcessState, b.log())
	}
	return nil
}

// kill ends the broker without giving it a chance to close connections.
func (b *broker) kill() {
	if b.command != nil {
		_ = b.command.Process.Kill()
		<-b.exited
	}
}

// remove ends the broker and removes its files.
func (b *broker) remove() {
	b.kill()
	_ = os.RemoveAll(b.directory)
}

func (b *broker) logFile() string { return filepath.Join(b.directory, "broker.log") }

// log returns the end of what the broker wrote to its log.
func (b *broker) log() string {
	text, _ := os.ReadFile(b.logFile())
	const limit = 10_000
	if len(text) > limit {
		text = text[len(text)-limit:]
	}
	return string(text)
}
