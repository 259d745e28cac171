package dev.wardrobe.grpc;

import com.google.protobuf.ByteString;
import dev.wardrobe.adapter.AdapterException;
import dev.wardrobe.adapter.AdapterException.Reason;
import dev.wardrobe.adapter.Announcement;
import dev.wardrobe.adapter.Publication;
import dev.wardrobe.tenant.VisibleAdapters;
import dev.wardrobe.v1.PublishAdapterRequest;
import dev.wardrobe.v1.PublishAdapterResponse;
import java.util.concurrent.Callable;
import java.util.concurrent.Executor;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;

/**
 * One call of PublishAdapter: its pieces are written by the workers, one at a time, and the next is
 * asked for when one is written, so a fast sender fills no memory. What was begun is given up when
 * the caller goes away, breaks off, or falls silent.
 */
final class PublishCall implements Methods.Inbound<PublishAdapterRequest> {
  private final VisibleAdapters adapters;
  private final Executor workers;
  private final Runnable next;
  private final Reply<PublishAdapterResponse> reply;
  private final Consumer<PublishCall> onEnd;
  private final long began = System.nanoTime();

  // Those below belong to the event loop, except that a worker has the publication while busy.
  private @Nullable Publication publication;
  private boolean complete;
  private boolean busy;
  private boolean gone;
  private long heard = System.nanoTime();

  PublishCall(
      VisibleAdapters adapters,
      Executor workers,
      Runnable next,
      Reply<PublishAdapterResponse> reply,
      Consumer<PublishCall> onEnd) {
    this.adapters = adapters;
    this.workers = workers;
    this.next = next;
    this.reply = reply;
    this.onEnd = onEnd;
    reply.onGone(() -> reply.run(this::gone));
  }

  @Override
  public void message(PublishAdapterRequest message) {
    heard = System.nanoTime();
    work(
        () -> {
          take(message);
          return null;
        });
  }

  @Override
  public void end() {
    work(this::finish);
  }

  private void take(PublishAdapterRequest message) throws AdapterException {
    Publication begun = publication;
    switch (message.getPartCase()) {
      case HEADER -> {
        if (begun != null) {
          throw invalid("expected one header, as the first message, got another");
        }
        publication = begin(message.getHeader());
      }
      case CONFIG -> pieces(begun).config(message.getConfig());
      case WEIGHTS -> pieces(begun).weights(message.getWeights());
      case PART_NOT_SET -> throw invalid("expected a header, config or weights, got none of them");
    }
  }

  /** Takes pieces of a file. */
  private record Pieces(Publication publication) {
    void config(ByteString bytes) throws AdapterException {
      for (var buffer : bytes.asReadOnlyByteBufferList()) {
        publication.config(buffer);
      }
    }

    void weights(ByteString bytes) throws AdapterException {
      for (var buffer : bytes.asReadOnlyByteBufferList()) {
        publication.weights(buffer);
      }
    }
  }

  private Pieces pieces(@Nullable Publication begun) throws AdapterException {
    if (begun == null) {
      throw invalid("expected the header as the first message, got a piece of a file");
    }
    if (complete) {
      throw invalid(
          "expected no pieces after a header with a path, got one; leave one of them out");
    }
    return new Pieces(begun);
  }

  private Publication begin(PublishAdapterRequest.Header header) throws AdapterException {
    Announcement announcement =
        new Announcement(
            header.getName(),
            header.hasVersion() ? header.getVersion() : null,
            header.getAliasesList(),
            header.getKeepLatest(),
            header.hasDigest() ? header.getDigest() : null);
    if (header.hasPath()) {
      if (header.getConfigBytes() != 0 || header.getWeightsBytes() != 0) {
        throw invalid("expected either a path or sizes, got both; leave one of them out");
      }
      complete = true;
      return adapters.publishFrom(announcement, header.getPath());
    }
    return adapters.publish(announcement, header.getConfigBytes(), header.getWeightsBytes());
  }

  private static AdapterException invalid(String message) {
    return new AdapterException(Reason.INVALID, message);
  }

  private PublishAdapterResponse finish() throws AdapterException {
    Publication begun = publication;
    if (begun == null) {
      throw invalid("expected a header as the first message, got none");
    }
    return AdapterMessages.published(begun.finish(), (System.nanoTime() - began) / 1e6);
  }

  /** Has a worker do the next thing; without an answer the caller may then send more. */
  private void work(Callable<@Nullable PublishAdapterResponse> action) {
    if (gone) {
      return;
    }
    busy = true;
    try {
      workers.execute(
          () -> {
            PublishAdapterResponse response = null;
            Throwable failure = null;
            try {
              response = action.call();
            } catch (Throwable e) {
              failure = e;
            }
            PublishAdapterResponse answer = response;
            Throwable refusal = failure;
            reply.run(() -> done(answer, refusal));
          });
    } catch (RejectedExecutionException e) {
      done(
          null, new AdapterException(Reason.IO, "the server is stopping; ask again once it is up"));
    }
  }

  private void done(@Nullable PublishAdapterResponse response, @Nullable Throwable failure) {
    busy = false;
    heard = System.nanoTime();
    if (failure != null) {
      reply.fail(failure);
      gone = true;
    } else if (response != null) {
      reply.end(response);
      gone = true;
    }
    if (gone) {
      giveUp();
    } else {
      next.run();
    }
  }

  private void gone() {
    gone = true;
    if (!busy) {
      giveUp();
    }
  }

  /** Breaks off if nothing came for so long. On any thread. */
  void checkIdle(long limitNanos) {
    reply.run(
        () -> {
          if (!gone && !busy && System.nanoTime() - heard > limitNanos) {
            reply.fail(
                new AdapterException(
                    Reason.CUT_OFF,
                    "expected the next piece within %d s, got none; publish it again"
                        .formatted(TimeUnit.NANOSECONDS.toSeconds(limitNanos))));
            gone = true;
            giveUp();
          }
        });
  }

  private void giveUp() {
    onEnd.accept(this);
    Publication begun = publication;
    publication = null;
    if (begun != null) {
      try {
        workers.execute(begun::close);
      } catch (RejectedExecutionException e) {
        // The store clears away what is left when it is next opened.
      }
    }
  }
}
