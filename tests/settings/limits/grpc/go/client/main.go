// The caller's side, as a user writes it: grpc-go, the service's own name, TLS, and nothing that knows of tanebi.
//
//	client HOST check   tries every kind of call
//	client HOST code    prints the code of one call's status
package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"example.com/echo/echo"
)

var connection *grpc.ClientConn

const patience = 60 * time.Second

func main() {
	var err error
	sizes := grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20), grpc.MaxCallSendMsgSize(64<<20))
	connection, err = grpc.NewClient(os.Args[1]+":443", grpc.WithTransportCredentials(credentials.NewTLS(nil)), sizes)
	must(err)
	if os.Args[2] == "code" {
		_, err := call(context.Background(), "Unary", nil)
		fmt.Println(status.Code(err), err)
		return
	}
	checks := []func(){metadataBothWays, manyAtOnce, packed, large, serverStream, clientStream, bidi, earlyAnswer, statuses, deadline, cancelled, timeout}
	for _, check := range checks {
		check()
	}
	fmt.Println(len(checks), "checks passed")
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func expect(seen, wanted any) {
	if fmt.Sprint(seen) != fmt.Sprint(wanted) {
		panic(fmt.Sprintf("%v, not %v", seen, wanted))
	}
}

func call(ctx context.Context, method string, message []byte, options ...grpc.CallOption) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var reply []byte
	err := connection.Invoke(ctx, echo.Method(method), &message, &reply, options...)
	return reply, err
}

func tell(pairs ...string) context.Context {
	return metadata.AppendToOutgoingContext(context.Background(), pairs...)
}

func stream(ctx context.Context, name string) grpc.ClientStream {
	opened, err := connection.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, echo.Method(name))
	must(err)
	return opened
}

func send(stream grpc.ClientStream, text string) {
	message := []byte(text)
	must(stream.SendMsg(&message))
}

func receive(stream grpc.ClientStream) (string, error) {
	var message []byte
	err := stream.RecvMsg(&message)
	return string(message), err
}

func received(stream grpc.ClientStream) string {
	message, err := receive(stream)
	must(err)
	return message
}

func metadataBothWays() {
	var header, trailer metadata.MD
	reply, err := call(tell("tell", "a word", "tell-bin", "\x00\xff\x01"), "Unary", []byte("hello"), grpc.Header(&header), grpc.Trailer(&trailer))
	must(err)
	expect(string(reply), "hello")
	expect(header.Get("told"), []string{"a word"})
	expect(header.Get("told-bin"), []string{"\x00\xff\x01"})
	expect(trailer.Get("told-at-last"), []string{"a word"})
}

func manyAtOnce() {
	var all sync.WaitGroup
	for number := range 50 {
		all.Go(func() {
			reply, err := call(context.Background(), "Unary", []byte(strconv.Itoa(number)))
			must(err)
			expect(string(reply), number)
		})
	}
	all.Wait()
}

func packed() {
	message := bytes.Repeat([]byte("packed "), 10_000)
	reply, err := call(context.Background(), "Unary", message, grpc.UseCompressor(gzip.Name))
	must(err)
	expect(bytes.Equal(reply, message), true)
}

// Beyond what a request of HTTP/1 may have.
func large() {
	message := bytes.Repeat([]byte("0123456789abcdef"), 40<<20/16)
	reply, err := call(context.Background(), "Unary", message)
	must(err)
	expect(bytes.Equal(reply, message), true)
}

// The second part is sent when the first has arrived.
func serverStream() {
	opened := stream(tell("tell", "at last", "fail", "9"), "ServerStream")
	send(opened, "")
	must(opened.CloseSend())
	expect(received(opened), "first")
	_, err := call(context.Background(), "Open", nil)
	must(err)
	expect(received(opened), "last")
	_, err = receive(opened)
	expect(status.Code(err), codes.FailedPrecondition)
	expect(status.Convert(err).Message(), "だめ: 9")
	expect(opened.Trailer().Get("told-at-last"), []string{"at last"})
}

func clientStream() {
	opened := stream(context.Background(), "ClientStream")
	for range 100 {
		send(opened, "0123456789")
	}
	must(opened.CloseSend())
	expect(received(opened), 1000)
	_, err := receive(opened)
	expect(err, io.EOF)
}

// Each answer is there before the next question is asked.
func bidi() {
	opened := stream(context.Background(), "Bidi")
	for number := range 50 {
		send(opened, strconv.Itoa(number))
		expect(received(opened), number)
	}
	send(opened, "end")
	expect(received(opened), "end")
	must(opened.CloseSend())
	_, err := receive(opened)
	expect(err, io.EOF)
}

// A status comes though the caller has not ended its part.
func earlyAnswer() {
	opened := stream(tell("fail", "3", "early", "1"), "Bidi")
	send(opened, "hello")
	expect(received(opened), "hello")
	_, err := receive(opened)
	expect(status.Code(err), codes.InvalidArgument)
}

func statuses() {
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		_, err := call(tell("fail", strconv.Itoa(int(code))), "Unary", nil)
		expect(status.Code(err), code)
		expect(status.Convert(err).Message(), fmt.Sprintf("だめ: %d", code))
	}
	_, err := call(context.Background(), "Absent", nil)
	expect(status.Code(err), codes.Unimplemented)
}

// ended waits until the function has seen one more call end early.
func ended(before int) {
	for until := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		if count := endedNow(); count > before {
			return
		}
		if time.Now().After(until) {
			panic("the function never saw it end")
		}
	}
}

func endedNow() int {
	reply, err := call(context.Background(), "Ended", nil)
	must(err)
	count, err := strconv.Atoi(string(reply))
	must(err)
	return count
}

// The caller's own deadline, which the function sees too.
func deadline() {
	before := endedNow()
	ctx, cancel := context.WithTimeout(tell("wait", "1"), 300*time.Millisecond)
	defer cancel()
	_, err := call(ctx, "Unary", nil)
	expect(status.Code(err), codes.DeadlineExceeded)
	ended(before)
}

func cancelled() {
	before := endedNow()
	ctx, cancel := context.WithCancel(context.Background())
	opened := stream(ctx, "Bidi")
	send(opened, "hello")
	expect(received(opened), "hello")
	cancel()
	_, err := receive(opened)
	expect(status.Code(err), codes.Canceled)
	ended(before)
}

// The service's request timeout, of which the caller knows nothing.
func timeout() {
	before := endedNow()
	started := time.Now()
	_, err := call(tell("wait", "1"), "Unary", nil)
	expect(status.Code(err), codes.Unavailable)
	if time.Since(started) > patience/2 {
		panic(fmt.Sprint("it took ", time.Since(started)))
	}
	ended(before)
}
