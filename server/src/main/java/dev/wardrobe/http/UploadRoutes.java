package dev.wardrobe.http;

import dev.wardrobe.adapter.AdapterException;
import dev.wardrobe.adapter.AdapterException.Reason;
import dev.wardrobe.adapter.AdapterRegistry;
import dev.wardrobe.adapter.Announcement;
import dev.wardrobe.adapter.Publication;
import dev.wardrobe.adapter.SentFile;
import dev.wardrobe.adapter.StoreOptions;
import dev.wardrobe.grpc.AdapterMessages;
import dev.wardrobe.tenant.Caller;
import dev.wardrobe.tenant.Places;
import dev.wardrobe.tenant.VisibleAdapters;
import dev.wardrobe.v1.PublishAdapterResponse;
import io.vertx.core.Context;
import io.vertx.core.MultiMap;
import io.vertx.core.Vertx;
import io.vertx.core.http.HttpHeaders;
import io.vertx.core.http.HttpMethod;
import io.vertx.core.http.HttpServerRequest;
import io.vertx.ext.web.Router;
import io.vertx.ext.web.RoutingContext;
import io.vertx.ext.web.handler.BodyHandler;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Objects;
import java.util.Set;
import java.util.concurrent.Executor;
import org.jspecify.annotations.Nullable;

/**
 * {@code POST /v1/adapters:upload}: a version, as a form with files: {@code adapter_config.json}
 * and {@code adapter_model.safetensors}, or an archive with them. What it is to be called is in the
 * query, so that it can be refused before the files come: {@code name}, {@code version}, {@code
 * alias} any number of times, {@code keep_latest}, {@code digest}; as PublishAdapter's header has
 * them. Answers with a PublishAdapterResponse.
 */
final class UploadRoutes {
  static final String PATH = "/v1/adapters:upload";

  private static final Set<String> PARAMETERS =
      Set.of("name", "version", "alias", "keep_latest", "digest");

  /** The files, and what a form puts around them. */
  private static final long LARGEST_BODY = StoreOptions.DEFAULT.maxWeightBytes() + (64 << 20);

  private static final int MOST_AT_ONCE = 8;
  private static final int MOST_OF_A_TENANT = MOST_AT_ONCE / 4;
  private static final long CHECK_MILLIS = 1000;
  private static final String ANNOUNCEMENT = Announcement.class.getName();

  private final Vertx vertx;
  private final AdapterRegistry adapters;
  private final Executor workers;
  private final Duration idle;

  private final Places places = new Places("uploads", MOST_AT_ONCE, MOST_OF_A_TENANT);

  /**
   * @param workers run what takes time
   * @param idle how long an upload may fall silent
   */
  UploadRoutes(Vertx vertx, AdapterRegistry adapters, Executor workers, Duration idle) {
    this.vertx = vertx;
    this.adapters = adapters;
    this.workers = workers;
    this.idle = idle;
  }

  void mount(Router router) {
    Path staging = adapters.staging();
    router.routeWithRegex(HttpMethod.POST, PATH).handler(context -> admit(context, staging));
    if (staging != null) {
      router
          .routeWithRegex(HttpMethod.POST, PATH)
          .handler(
              BodyHandler.create(staging.toString())
                  .setBodyLimit(LARGEST_BODY)
                  .setMergeFormAttributes(false)
                  .setDeleteUploadedFilesOnEnd(true))
          .handler(this::publish);
    }
  }

  /** Refuses what can be refused before it comes, and watches what is let in. */
  private void admit(RoutingContext context, @Nullable Path staging) {
    HttpServerRequest request = context.request();
    Context loop = Objects.requireNonNull(Vertx.currentContext());
    request.pause();
    workers.execute(
        () -> {
          Throwable refusal = null;
          try {
            Announcement announcement = announcement(context.queryParams());
            visible(context).checkPublishable(announcement);
            checkForm(request);
            checkRoom(request, staging);
            context.put(ANNOUNCEMENT, announcement);
          } catch (Throwable e) {
            refusal = e;
          }
          Throwable refused = refusal;
          loop.runOnContext(_ -> admitted(context, refused));
        });
  }

  private void admitted(RoutingContext context, @Nullable Throwable refusal) {
    if (context.response().closed()) {
      // Gone while it was looked at: nothing would ever end it.
      return;
    }
    Caller caller = Callers.of(context);
    String full = refusal == null ? places.take(caller) : null;
    if (refusal != null) {
      HttpErrors.answer(context, refusal);
    } else if (full != null) {
      HttpErrors.answer(context, 429, full, null);
    } else {
      context.addEndHandler(_ -> places.giveBack(caller));
      watch(context);
      context.next();
    }
    // What was refused is read to its end, so that whoever sends it gets to read why.
    context.request().resume();
  }

  /** Breaks off an upload of which nothing has come for so long. */
  private void watch(RoutingContext context) {
    HttpServerRequest request = context.request();
    long[] seen = {request.bytesRead(), System.nanoTime()};
    long timer =
        vertx.setPeriodic(
            CHECK_MILLIS,
            id -> {
              long now = System.nanoTime();
              if (request.isEnded()) {
                vertx.cancelTimer(id);
              } else if (request.bytesRead() != seen[0]) {
                seen[0] = request.bytesRead();
                seen[1] = now;
              } else if (now - seen[1] > idle.toNanos()) {
                vertx.cancelTimer(id);
                HttpErrors.answer(
                    context,
                    408,
                    "expected the next bytes within %d s, got none; send it again"
                        .formatted(idle.toSeconds()),
                    null);
                var _ = request.connection().close();
              }
            });
    context.addEndHandler(_ -> vertx.cancelTimer(timer));
  }

  private static Announcement announcement(MultiMap query) throws AdapterException {
    for (String given : query.names()) {
      if (!PARAMETERS.contains(given)) {
        throw invalid(
            "expected name, version, alias, keep_latest or digest in the query, got '%s'"
                .formatted(given));
      }
    }
    String name = query.get("name");
    if (name == null) {
      throw invalid("name: expected the adapter's name in the query, got none; add ?name=NAME");
    }
    String keep = query.get("keep_latest");
    if (keep != null && !keep.equals("true") && !keep.equals("false")) {
      throw invalid("keep_latest: expected true or false, got '%s'".formatted(keep));
    }
    return new Announcement(
        name,
        query.get("version"),
        query.getAll("alias"),
        keep != null && keep.equals("true"),
        query.get("digest"));
  }

  private static void checkForm(HttpServerRequest request) throws AdapterException {
    String type = request.getHeader(HttpHeaders.CONTENT_TYPE);
    if (type == null || !type.startsWith("multipart/form-data")) {
      throw invalid(
          "content-type: expected a form with files (multipart/form-data), got %s; with curl: -F"
                  .formatted(type == null ? "none" : "'" + type + "'")
              + " file=@adapter.zip");
    }
  }

  private static void checkRoom(HttpServerRequest request, @Nullable Path staging)
      throws AdapterException, IOException {
    String length = request.getHeader(HttpHeaders.CONTENT_LENGTH);
    if (length == null || staging == null) {
      return;
    }
    // The form, and what of it goes to the store.
    long free = Files.getFileStore(staging).getUsableSpace() / 2;
    if (Long.parseLong(length) > free) {
      throw new AdapterException(
          Reason.TOO_LARGE,
          "expected at most %d bytes, half of what is free on the store's disk, got %s; make room"
              .formatted(free, length));
    }
  }

  private VisibleAdapters visible(RoutingContext context) {
    return new VisibleAdapters(adapters, Callers.of(context));
  }

  private static AdapterException invalid(String message) {
    return new AdapterException(Reason.INVALID, message);
  }

  private void publish(RoutingContext context) {
    long began = System.nanoTime();
    Announcement announcement = Objects.requireNonNull(context.get(ANNOUNCEMENT));
    List<SentFile> files =
        context.fileUploads().stream()
            .map(file -> new SentFile(file.fileName(), Path.of(file.uploadedFileName())))
            .toList();
    Context loop = Objects.requireNonNull(Vertx.currentContext());
    workers.execute(
        () -> {
          try (Publication publication = visible(context).publishSent(announcement, files)) {
            PublishAdapterResponse response =
                AdapterMessages.published(publication.finish(), (System.nanoTime() - began) / 1e6);
            String json = ProtoJson.of(response);
            loop.runOnContext(
                _ -> {
                  // The key may have been revoked meanwhile, and that told.
                  if (!context.response().ended()) {
                    context
                        .response()
                        .putHeader(HttpHeaders.CONTENT_TYPE, "application/json")
                        .end(json);
                  }
                });
          } catch (Throwable e) {
            loop.runOnContext(_ -> HttpErrors.answer(context, e));
          }
        });
  }
}
