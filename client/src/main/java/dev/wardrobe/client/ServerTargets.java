package dev.wardrobe.client;

import io.grpc.ManagedChannel;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collections;
import java.util.Comparator;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Function;
import org.jspecify.annotations.Nullable;

/**
 * The servers of a client, and which of them is asked.
 *
 * <p>An adapter has its place among them by rendezvous hashing: the server with the highest hash of
 * both names. So every client sends an adapter's requests to the server that has it resident, and
 * when a server comes or goes only its own adapters move (Thaler and Ravishankar, 1998). What names
 * no adapter is dealt out in turn.
 */
final class ServerTargets {
  /** How long a server that did not answer is asked after all others. */
  private static final Duration DOWN = Duration.ofSeconds(5);

  private final List<Server> servers;
  private final AtomicInteger turn = new AtomicInteger();

  /** One server, and when it may be taken for reachable again. */
  static final class Server {
    private final String name;
    private final ManagedChannel channel;
    private volatile long downSince;
    private volatile boolean down;

    private Server(String name, ManagedChannel channel) {
      this.name = name;
      this.channel = channel;
    }

    String name() {
      return name;
    }

    ManagedChannel channel() {
      return channel;
    }

    /** It did not answer. */
    void failed() {
      downSince = System.nanoTime();
      down = true;
    }

    void answered() {
      down = false;
    }

    private boolean down() {
      return down && System.nanoTime() - downSince < DOWN.toNanos();
    }
  }

  private ServerTargets(List<Server> servers) {
    this.servers = List.copyOf(servers);
  }

  ServerTargets(List<String> names, Function<String, ManagedChannel> channels) {
    this(names.stream().map(name -> new Server(name, channels.apply(name))).toList());
  }

  /**
   * Only that one.
   *
   * @throws IllegalArgumentException if there is none of that name
   */
  ServerTargets only(String name) {
    for (Server server : servers) {
      if (server.name.equals(name)) {
        return new ServerTargets(List.of(server));
      }
    }
    throw new IllegalArgumentException(
        "expected one of the servers %s, got %s".formatted(names(), name));
  }

  List<String> names() {
    return servers.stream().map(Server::name).toList();
  }

  /**
   * In which order servers are asked: the adapter's own first, those that lately did not answer
   * last.
   *
   * @param reference an adapter as requests name it, or null for the base
   */
  List<Server> order(@Nullable String reference) {
    List<Server> order = new ArrayList<>(servers);
    if (order.size() > 1) {
      if (reference == null) {
        int first = Math.floorMod(turn.getAndIncrement(), order.size());
        Collections.rotate(order, -first);
      } else {
        // The versions of a name share a place: what an alias moves between stays where it is.
        int at = reference.indexOf('@');
        String adapter = at < 0 ? reference : reference.substring(0, at);
        order.sort(
            Comparator.comparing((Server s) -> hash(s.name, adapter), Long::compareUnsigned)
                .reversed());
      }
      List<Server> down = order.stream().filter(Server::down).toList();
      order.removeAll(down);
      order.addAll(down);
    }
    return order;
  }

  /** FNV-1a over both names, then the finalizer of SplitMix64, since FNV's high bits mix badly. */
  private static long hash(String server, String adapter) {
    long hash = 0xcbf29ce484222325L;
    for (byte b : (server + '\n' + adapter).getBytes(StandardCharsets.UTF_8)) {
      hash = (hash ^ (b & 0xff)) * 0x100000001b3L;
    }
    hash = (hash ^ (hash >>> 30)) * 0xbf58476d1ce4e5b9L;
    hash = (hash ^ (hash >>> 27)) * 0x94d049bb133111ebL;
    return hash ^ (hash >>> 31);
  }

  void close() {
    servers.forEach(server -> server.channel.shutdownNow());
    try {
      for (Server server : servers) {
        boolean _ = server.channel.awaitTermination(5, TimeUnit.SECONDS);
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }
}
