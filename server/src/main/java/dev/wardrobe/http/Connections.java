package dev.wardrobe.http;

import io.netty.channel.ChannelPipeline;
import io.netty.handler.timeout.IdleStateHandler;
import io.vertx.core.Vertx;
import io.vertx.core.http.HttpConnection;
import io.vertx.core.http.HttpServerRequest;
import io.vertx.core.http.HttpVersion;
import io.vertx.core.http.impl.HttpServerConnection;
import io.vertx.ext.web.RoutingContext;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * The connections that there are: no more than so many, and none for long on which nothing is
 * asked. One on which an answer is waited for, or read, is never closed for its silence.
 *
 * <p>All methods are called on the connection's event loop.
 */
final class Connections {
  /** How many connections are told that they are too many. */
  private static final int TOLD = 64;

  private final Vertx vertx;
  private final int most;
  private final Patience patience;
  private final AtomicInteger count = new AtomicInteger();
  private final Map<HttpConnection, Line> lines = new ConcurrentHashMap<>();

  /**
   * @param most at a time
   */
  Connections(Vertx vertx, int most, Patience patience) {
    this.vertx = vertx;
    this.most = most;
    this.patience = patience;
  }

  /** Counts a connection. Of those that are too many some are told so, the others closed. */
  void opened(HttpConnection connection) {
    unwatch(connection);
    int number = count.incrementAndGet();
    Line line = new Line(connection, number > most);
    lines.put(connection, line);
    long timer = vertx.setPeriodic(patience.checkMillis(), _ -> line.check());
    connection.closeHandler(
        _ -> {
          vertx.cancelTimer(timer);
          lines.remove(connection);
          count.decrementAndGet();
        });
    if (number > most + TOLD) {
      connection.close();
    }
  }

  /**
   * Until here, where a connection has said nothing of HTTP yet, Vert.x's idle timeout watches it,
   * as nothing else can. It knows no requests, and would end those that wait.
   */
  private static void unwatch(HttpConnection connection) {
    ChannelPipeline pipeline =
        ((HttpServerConnection) connection).channelHandlerContext().pipeline();
    if (pipeline.get(IdleStateHandler.class) != null) {
      pipeline.remove(IdleStateHandler.class);
    }
  }

  /** Whether it is one too many. */
  boolean isSurplus(HttpConnection connection) {
    Line line = lines.get(connection);
    return line != null && line.surplus;
  }

  /** A request over HTTP has come. */
  void begun(RoutingContext context) {
    Line line = lines.get(context.request().connection());
    if (line != null) {
      Body body = context.request().isEnded() || isUpload(context) ? null : new Body(context);
      line.open++;
      line.asked = true;
      if (body != null) {
        line.bodies.add(body);
      }
      context.addEndHandler(
          _ -> {
            if (body != null) {
              line.bodies.remove(body);
            }
            line.ended();
          });
    }
  }

  /** Has its own limit. */
  private static boolean isUpload(RoutingContext context) {
    return UploadRoutes.PATH.equals(context.request().path());
  }

  /** A gRPC call has come. */
  void begun(HttpServerRequest call) {
    Line line = lines.get(call.connection());
    if (line != null) {
      line.open++;
      line.asked = true;
      // Over HTTP/2 this is called for calls that are broken off, too.
      call.response().endHandler(_ -> line.ended());
    }
  }

  /** Never closes a connection for its silence: a gRPC client that is let in has it for hours. */
  void keep(HttpServerRequest call) {
    Line line = lines.get(call.connection());
    if (line != null) {
      line.kept = true;
    }
  }

  /** A connection and what is asked on it. */
  private final class Line {
    private final HttpConnection connection;
    private final boolean surplus;
    private final Set<Body> bodies = new HashSet<>();
    private int open;
    private boolean asked;
    private boolean kept;

    /** When there was last something open. */
    private long since = System.nanoTime();

    Line(HttpConnection connection, boolean surplus) {
      this.connection = connection;
      this.surplus = surplus;
    }

    void ended() {
      open--;
      since = System.nanoTime();
      if (surplus) {
        connection.close();
      }
    }

    void check() {
      long now = System.nanoTime();
      List.copyOf(bodies).forEach(body -> body.check(this, now));
      long limit = (asked ? patience.next() : patience.first()).toNanos();
      if (open == 0 && !kept && now - since > limit) {
        connection.close();
      }
    }
  }

  /** What is still to come of a request. */
  private final class Body {
    private final RoutingContext context;
    private long bytes;
    private long since = System.nanoTime();

    Body(RoutingContext context) {
      this.context = context;
    }

    void check(Line line, long now) {
      HttpServerRequest request = context.request();
      if (request.isEnded() || context.response().headWritten()) {
        line.bodies.remove(this);
      } else if (request.bytesRead() != bytes) {
        bytes = request.bytesRead();
        since = now;
      } else if (now - since > patience.body().toNanos()) {
        HttpErrors.answer(
            context,
            408,
            "the body: expected its next bytes within %d s, got none; send the request again"
                .formatted(Math.max(1, patience.body().toSeconds())),
            null);
        // Where others wait on the same connection they are not to suffer for it.
        if (request.version() != HttpVersion.HTTP_2 || line.open == 0) {
          line.connection.close();
        }
      }
    }
  }
}
