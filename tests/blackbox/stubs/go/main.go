// pinger WS_URL GRPC_ADDR: a service by grpc-go and its client by coder/websocket; prints one JSON line of what they saw.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"slices"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	demo "example.com/stubs/demo/v1"
	trestle "example.com/stubs/trestle/v1"
)

// patience is how long the whole conversation may take.
const patience = 30 * time.Second

const channel = "live:ticks"

// pinger is the service: it replies to Ping, and does a Job after having declined it as often as it asks.
type pinger struct {
	stream   trestle.Bridge_AttachClient
	attached chan *trestle.Attached
	pushed   chan *trestle.PushStreamResponse
	attempts []uint32
}

func (p *pinger) serve() error {
	for {
		frame, err := p.stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch frame := frame.Frame.(type) {
		case *trestle.GatewayFrame_Attached:
			p.attached <- frame.Attached
		case *trestle.GatewayFrame_Pushed:
			p.pushed <- frame.Pushed
		case *trestle.GatewayFrame_Deliveries:
			for _, delivery := range frame.Deliveries.Deliveries {
				if err := p.handle(delivery); err != nil {
					return err
				}
			}
		default:
			return fmt.Errorf("unexpected %v", frame)
		}
	}
}

func (p *pinger) handle(delivery *trestle.Delivery) error {
	id, envelope := delivery.DeliveryId, delivery.Envelope
	switch envelope.MessageType {
	case "demo.v1.Ping":
		var ping demo.Ping
		if err := proto.Unmarshal(envelope.Payload, &ping); err != nil {
			return err
		}
		pong := seal("demo.v1.Pong", &demo.Pong{Text: ping.Text, By: "go"})
		return p.stream.Send(&trestle.ServiceFrame{Frame: &trestle.ServiceFrame_Reply{
			Reply: &trestle.Reply{DeliveryId: id, Message: pong},
		}})
	case "demo.v1.Job":
		var job demo.Job
		if err := proto.Unmarshal(envelope.Payload, &job); err != nil {
			return err
		}
		p.attempts = append(p.attempts, delivery.Attempt)
		if delivery.Attempt <= job.Declines {
			return p.stream.Send(&trestle.ServiceFrame{Frame: &trestle.ServiceFrame_Nack{
				Nack: &trestle.Nack{DeliveryId: id},
			}})
		}
		push := &trestle.PushStreamRequest{Seq: 1, Count: true, Push: &trestle.PushRequest{
			Target:  &trestle.Target{Target: &trestle.Target_Session{Session: envelope.Source.Session}},
			Message: seal("demo.v1.News", &demo.News{Text: job.Name, Number: int64(delivery.Attempt)}),
		}}
		if err := p.stream.Send(&trestle.ServiceFrame{Frame: &trestle.ServiceFrame_Push{Push: push}}); err != nil {
			return err
		}
		return p.stream.Send(&trestle.ServiceFrame{Frame: &trestle.ServiceFrame_Ack{
			Ack: &trestle.Ack{DeliveryIds: []uint64{id}},
		}})
	}
	return fmt.Errorf("unexpected %s", envelope.MessageType)
}

// client speaks trestle.v1.proto.
type client struct {
	socket *websocket.Conn
	lastID uint32
	kept   []*trestle.ServerFrame
}

func (c *client) ask(ctx context.Context, frame *trestle.ClientFrame) (*trestle.ServerFrame, error) {
	c.lastID++
	frame.Id = c.lastID
	data, err := proto.Marshal(&trestle.ClientFrames{Frames: []*trestle.ClientFrame{frame}})
	if err != nil {
		return nil, err
	}
	if err := c.socket.Write(ctx, websocket.MessageBinary, data); err != nil {
		return nil, err
	}
	return c.take(ctx, func(got *trestle.ServerFrame) bool { return got.ReplyTo == frame.Id })
}

func (c *client) news(ctx context.Context) (string, error) {
	got, err := c.take(ctx, func(got *trestle.ServerFrame) bool { return got.GetDelivery().GetMessageType() == "demo.v1.News" })
	if err != nil {
		return "", err
	}
	var news demo.News
	err = proto.Unmarshal(got.GetDelivery().Payload, &news)
	return fmt.Sprintf("%s %d", news.Text, news.Number), err
}

// take gives the first frame that is wanted and keeps the others.
func (c *client) take(ctx context.Context, wanted func(*trestle.ServerFrame) bool) (*trestle.ServerFrame, error) {
	for {
		if at := slices.IndexFunc(c.kept, wanted); at >= 0 {
			got := c.kept[at]
			c.kept = slices.Delete(c.kept, at, at+1)
			return got, nil
		}
		_, data, err := c.socket.Read(ctx)
		if err != nil {
			return nil, fmt.Errorf("%w; not taken: %v", err, c.kept)
		}
		var frames trestle.ServerFrames
		if err := proto.Unmarshal(data, &frames); err != nil {
			return nil, err
		}
		c.kept = append(c.kept, frames.Frames...)
	}
}

// seal puts a message into an envelope.
func seal(messageType string, message proto.Message) *trestle.Envelope {
	payload, err := proto.Marshal(message)
	if err != nil {
		log.Fatal(err)
	}
	return &trestle.Envelope{MessageType: messageType, Payload: payload}
}

// tick pushes three messages in order on one PushStream and gives the sequence numbers that came back.
func tick(ctx context.Context, bridge trestle.BridgeClient) ([]uint64, error) {
	pushes, err := bridge.PushStream(ctx)
	if err != nil {
		return nil, err
	}
	for n := range 3 {
		err := pushes.Send(&trestle.PushStreamRequest{Seq: uint64(n + 1), Push: &trestle.PushRequest{
			Target:  &trestle.Target{Target: &trestle.Target_Channel{Channel: channel}},
			Message: seal("demo.v1.News", &demo.News{Text: "tick", Number: int64(n + 1)}),
		}})
		if err != nil {
			return nil, err
		}
	}
	if err := pushes.CloseSend(); err != nil {
		return nil, err
	}
	var seqs []uint64
	for {
		answer, err := pushes.Recv()
		if errors.Is(err, io.EOF) {
			return seqs, nil
		}
		if err != nil {
			return nil, err
		}
		if answer.GetReport() == nil {
			return nil, fmt.Errorf("push was answered with %v", answer)
		}
		seqs = append(seqs, answer.Seq)
	}
}

// seen is what the test asserts.
type seen struct {
	Attached []string `json:"attached"`
	Pong     string   `json:"pong"`
	Job      string   `json:"job"`
	Attempts []uint32 `json:"attempts"`
	Done     string   `json:"done"`
	Counted  uint32   `json:"counted"`
	Seqs     []uint64 `json:"seqs"`
	Ticks    []string `json:"ticks"`
}

func run(ctx context.Context, url, address string) (*seen, error) {
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	bridge := trestle.NewBridgeClient(conn)
	stream, err := bridge.Attach(ctx)
	if err != nil {
		return nil, err
	}
	service := &pinger{stream: stream, attached: make(chan *trestle.Attached, 1), pushed: make(chan *trestle.PushStreamResponse, 1)}
	served := make(chan error, 1)
	go func() { served <- service.serve() }()
	hello := &trestle.Hello{Service: "pinger", Instance: "go-1"}
	if err := stream.Send(&trestle.ServiceFrame{Frame: &trestle.ServiceFrame_Hello{Hello: hello}}); err != nil {
		return nil, err
	}
	saw := &seen{}
	select {
	case attached := <-service.attached:
		for _, kind := range attached.Types {
			saw.Attached = append(saw.Attached, kind.MessageType)
		}
		slices.Sort(saw.Attached)
	case err := <-served:
		return nil, fmt.Errorf("attach: %w", err)
	}

	socket, _, err := websocket.Dial(ctx, url, &websocket.DialOptions{Subprotocols: []string{"trestle.v1.proto"}})
	if err != nil {
		return nil, err
	}
	defer socket.CloseNow()
	c := &client{socket: socket}
	if _, err := c.ask(ctx, &trestle.ClientFrame{Frame: &trestle.ClientFrame_Subscribe{Subscribe: &trestle.Subscribe{Channel: channel}}}); err != nil {
		return nil, err
	}
	answer, err := c.ask(ctx, &trestle.ClientFrame{Frame: &trestle.ClientFrame_Request{Request: &trestle.Request{
		Message: seal("PING", &demo.Ping{Text: "hi ☃"}),
	}}})
	if err != nil {
		return nil, err
	}
	var pong demo.Pong
	if err := proto.Unmarshal(answer.GetReply().GetPayload(), &pong); err != nil {
		return nil, err
	}
	saw.Pong = fmt.Sprintf("%s by %s", pong.Text, pong.By)
	answer, err = c.ask(ctx, &trestle.ClientFrame{Frame: &trestle.ClientFrame_Message{
		Message: seal("JOB", &demo.Job{Name: "done", Declines: 1}),
	}})
	if err != nil {
		return nil, err
	}
	saw.Job = answer.GetAccepted().GetLevel().String()
	if saw.Done, err = c.news(ctx); err != nil {
		return nil, err
	}
	saw.Counted = (<-service.pushed).GetReport().GetDelivered()
	if saw.Seqs, err = tick(ctx, bridge); err != nil {
		return nil, err
	}
	for range 3 {
		news, err := c.news(ctx)
		if err != nil {
			return nil, err
		}
		saw.Ticks = append(saw.Ticks, news)
	}
	if err := stream.CloseSend(); err != nil {
		return nil, err
	}
	if err := <-served; err != nil {
		return nil, fmt.Errorf("serve: %w", err)
	}
	saw.Attempts = service.attempts
	return saw, nil
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	saw, err := run(ctx, os.Args[1], os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(saw); err != nil {
		log.Fatal(err)
	}
}
