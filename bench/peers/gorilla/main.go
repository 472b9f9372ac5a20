// A WebSocket hub as gorilla/websocket's chat example has it, with rooms: one goroutine owns who is where, two serve each
// connection, and a channel between them holds what waits.
package main

import (
	"bytes"
	"log"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/gorilla/websocket"
)

// The example's own times and sizes, but for the buffers.
const (
	writeWait  = 10 * time.Second
	pongWait   = 60 * time.Second
	pingPeriod = pongWait * 9 / 10
	// Largest message from a client, in bytes.
	maxMessageSize = 4 * 1024
	// Messages that wait for one connection; one that has more is closed.
	sendMax = 256
	// Bytes that are written as one frame. The buffers come from a pool, so that an idle connection has none.
	writeBufferSize = 16 * 1024
	// Bytes; a connection keeps it.
	readBufferSize = 1024
)

type client struct {
	conn *websocket.Conn
	send chan []byte
	// The rooms it is in. Only the hub touches them.
	rooms []string
}

// What a client said.
type said struct {
	client  *client
	message []byte
}

type hub struct {
	rooms map[string]map[*client]bool
	said  chan said
	left  chan *client
}

func (h *hub) run() {
	for {
		select {
		case s := <-h.said:
			if s.client.send == nil {
				continue
			}
			verb, rest, _ := bytes.Cut(s.message, []byte(" "))
			room, _, _ := bytes.Cut(rest, []byte(" "))
			switch string(verb) {
			case "s":
				h.join(s.client, string(room))
				h.deliver(s.client, s.message)
			case "p":
				for c := range h.rooms[string(room)] {
					h.deliver(c, s.message)
				}
			}
		case c := <-h.left:
			h.leave(c)
		}
	}
}

func (h *hub) join(c *client, room string) {
	members := h.rooms[room]
	if members == nil {
		members = make(map[*client]bool)
		h.rooms[room] = members
	}
	if !members[c] {
		members[c] = true
		c.rooms = append(c.rooms, room)
	}
}

// A client with a full queue is parted from, as in the example.
func (h *hub) deliver(c *client, message []byte) {
	select {
	case c.send <- message:
	default:
		h.leave(c)
	}
}

// Takes the client out of all rooms. Its channel is closed, which ends its writer and with it the connection.
func (h *hub) leave(c *client) {
	if c.send == nil {
		return
	}
	for _, room := range c.rooms {
		delete(h.rooms[room], c)
		if len(h.rooms[room]) == 0 {
			delete(h.rooms, room)
		}
	}
	close(c.send)
	c.send = nil
}

func (c *client) read(h *hub) {
	defer func() {
		h.left <- c
		c.conn.Close()
	}()
	c.conn.SetReadLimit(maxMessageSize)
	c.conn.SetReadDeadline(time.Now().Add(pongWait))
	c.conn.SetPongHandler(func(string) error { return c.conn.SetReadDeadline(time.Now().Add(pongWait)) })
	for {
		_, message, err := c.conn.ReadMessage()
		if err != nil {
			return
		}
		h.said <- said{c, message}
	}
}

// Owns the channel's other end: the hub's copy of it becomes nil when the client has left.
func (c *client) write(send <-chan []byte) {
	ticker := time.NewTicker(pingPeriod)
	defer func() {
		ticker.Stop()
		c.conn.Close()
	}()
	for {
		select {
		case message, open := <-send:
			if !open || c.writeFrame(message, send) != nil {
				return
			}
		case <-ticker.C:
			c.conn.SetWriteDeadline(time.Now().Add(writeWait))
			if c.conn.WriteMessage(websocket.PingMessage, nil) != nil {
				return
			}
		}
	}
}

// One frame with the message and all that wait behind it, as in the example, as far as one buffer goes: the library would
// break a larger one into fragments.
func (c *client) writeFrame(message []byte, send <-chan []byte) error {
	c.conn.SetWriteDeadline(time.Now().Add(writeWait))
	w, err := c.conn.NextWriter(websocket.TextMessage)
	if err != nil {
		return err
	}
	w.Write(message)
	for size := len(message); len(send) > 0 && size+1+maxMessageSize <= writeBufferSize; {
		more, open := <-send
		if !open {
			break
		}
		w.Write([]byte{'\n'})
		w.Write(more)
		size += 1 + len(more)
	}
	return w.Close()
}

func main() {
	h := &hub{rooms: make(map[string]map[*client]bool), said: make(chan said), left: make(chan *client)}
	go h.run()
	upgrader := websocket.Upgrader{
		ReadBufferSize:  readBufferSize,
		WriteBufferSize: writeBufferSize,
		WriteBufferPool: &sync.Pool{},
		CheckOrigin:     func(*http.Request) bool { return true },
	}
	gin.SetMode(gin.ReleaseMode)
	router := gin.New()
	router.GET("/ws", func(ctx *gin.Context) {
		conn, err := upgrader.Upgrade(ctx.Writer, ctx.Request, nil)
		if err != nil {
			return
		}
		c := &client{conn: conn, send: make(chan []byte, sendMax)}
		go c.write(c.send)
		go c.read(h)
	})
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Getenv("PORT"))
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(router.RunListener(listener))
}
