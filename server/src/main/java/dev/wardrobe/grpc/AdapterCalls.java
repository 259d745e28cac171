package dev.wardrobe.grpc;

import dev.wardrobe.adapter.AdapterEntry;
import dev.wardrobe.adapter.AdapterException;
import dev.wardrobe.adapter.AdapterException.Reason;
import dev.wardrobe.adapter.AdapterPage;
import dev.wardrobe.adapter.AdapterRegistry;
import dev.wardrobe.adapter.Catalog;
import dev.wardrobe.adapter.Release;
import dev.wardrobe.adapter.Unloaded;
import dev.wardrobe.tenant.OpenCalls;
import dev.wardrobe.tenant.VisibleAdapters;
import dev.wardrobe.v1.AdapterEvent;
import dev.wardrobe.v1.AdapterProto;
import dev.wardrobe.v1.Alias;
import dev.wardrobe.v1.DeleteAliasRequest;
import dev.wardrobe.v1.DeleteAliasResponse;
import dev.wardrobe.v1.DeleteVersionRequest;
import dev.wardrobe.v1.DeleteVersionResponse;
import dev.wardrobe.v1.GetAdapterRequest;
import dev.wardrobe.v1.GetAdapterResponse;
import dev.wardrobe.v1.ListAdaptersRequest;
import dev.wardrobe.v1.ListAdaptersResponse;
import dev.wardrobe.v1.ListVersionsRequest;
import dev.wardrobe.v1.ListVersionsResponse;
import dev.wardrobe.v1.LoadAdapterRequest;
import dev.wardrobe.v1.LoadAdapterResponse;
import dev.wardrobe.v1.PinAdapterRequest;
import dev.wardrobe.v1.PinAdapterResponse;
import dev.wardrobe.v1.PublishAdapterRequest;
import dev.wardrobe.v1.PublishAdapterResponse;
import dev.wardrobe.v1.RollbackAliasRequest;
import dev.wardrobe.v1.RollbackAliasResponse;
import dev.wardrobe.v1.ScanAdaptersRequest;
import dev.wardrobe.v1.ScanAdaptersResponse;
import dev.wardrobe.v1.SetAliasRequest;
import dev.wardrobe.v1.SetAliasResponse;
import dev.wardrobe.v1.Shadow;
import dev.wardrobe.v1.Share;
import dev.wardrobe.v1.UnloadAdapterRequest;
import dev.wardrobe.v1.UnloadAdapterResponse;
import dev.wardrobe.v1.UnpinAdapterRequest;
import dev.wardrobe.v1.UnpinAdapterResponse;
import dev.wardrobe.v1.WatchAdaptersRequest;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.OptionalLong;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Executor;
import java.util.function.Function;

/** {@code wardrobe.v1.AdapterService} over an {@link AdapterRegistry}. */
final class AdapterCalls {
  private static final int PAGE = 1000;
  private static final int LARGEST_PAGE = 10_000;

  private final AdapterRegistry adapters;
  private final Executor workers;
  private final OpenCalls open;
  private final Set<PublishCall> publications = ConcurrentHashMap.newKeySet();
  private final Set<WatchCall> watches = ConcurrentHashMap.newKeySet();

  /**
   * @param workers run what takes time
   * @param open where calls are noted while they last
   */
  AdapterCalls(AdapterRegistry adapters, Executor workers, OpenCalls open) {
    this.open = open;
    this.adapters = adapters;
    this.workers = workers;
  }

  Methods service() {
    return new Methods(AdapterProto.getDescriptor().findServiceByName("AdapterService"), open)
        .with("LoadAdapter", LoadAdapterRequest.getDefaultInstance(), this::load)
        .with("UnloadAdapter", UnloadAdapterRequest.getDefaultInstance(), this::unload)
        .with("ListAdapters", ListAdaptersRequest.getDefaultInstance(), this::list)
        .with("GetAdapter", GetAdapterRequest.getDefaultInstance(), this::get)
        .with("ScanAdapters", ScanAdaptersRequest.getDefaultInstance(), this::scan)
        .withStream("PublishAdapter", PublishAdapterRequest.getDefaultInstance(), this::publish)
        .with("ListVersions", ListVersionsRequest.getDefaultInstance(), this::versions)
        .with("SetAlias", SetAliasRequest.getDefaultInstance(), this::setAlias)
        .with("RollbackAlias", RollbackAliasRequest.getDefaultInstance(), this::rollback)
        .with("DeleteAlias", DeleteAliasRequest.getDefaultInstance(), this::deleteAlias)
        .with("DeleteVersion", DeleteVersionRequest.getDefaultInstance(), this::deleteVersion)
        .with("PinAdapter", PinAdapterRequest.getDefaultInstance(), this::pin)
        .with("UnpinAdapter", UnpinAdapterRequest.getDefaultInstance(), this::unpin)
        .with("WatchAdapters", WatchAdaptersRequest.getDefaultInstance(), this::watch);
  }

  /** Breaks off publications of which nothing has come for so long. */
  void checkIdle(long limitNanos) {
    publications.forEach(publication -> publication.checkIdle(limitNanos));
  }

  /** Ends all watches: they would never end by themselves. */
  void stopWatches() {
    watches.forEach(WatchCall::stop);
  }

  /** The adapters that there are for who asks. */
  private VisibleAdapters of(Reply<?> reply) {
    return new VisibleAdapters(adapters, reply.caller());
  }

  private <R> void work(Reply<R> reply, Callable<R> answer) {
    workers.execute(
        () -> {
          try {
            reply.end(answer.call());
          } catch (Throwable e) {
            reply.fail(e);
          }
        });
  }

  private static <T, R> void reply(
      Reply<R> reply, CompletableFuture<T> future, Function<T, R> answer) {
    var _ =
        future.whenComplete(
            (result, failure) -> {
              if (failure != null) {
                reply.fail(failure);
              } else {
                reply.end(answer.apply(result));
              }
            });
  }

  private void load(LoadAdapterRequest request, long timeout, Reply<LoadAdapterResponse> reply) {
    long began = System.nanoTime();
    reply(
        reply,
        of(reply).load(request.getName(), request.hasPath() ? request.getPath() : null),
        entry ->
            LoadAdapterResponse.newBuilder()
                .setAdapter(AdapterMessages.adapter(entry))
                .setLoadMs((System.nanoTime() - began) / 1e6)
                .build());
  }

  private void unload(
      UnloadAdapterRequest request, long timeout, Reply<UnloadAdapterResponse> reply) {
    work(
        reply,
        () -> {
          Unloaded unloaded = of(reply).unload(request.getName());
          return UnloadAdapterResponse.newBuilder()
              .setDigest(unloaded.digest())
              .setInUse(unloaded.inUse())
              .build();
        });
  }

  private void list(ListAdaptersRequest request, long timeout, Reply<ListAdaptersResponse> reply) {
    work(
        reply,
        () -> {
          int size = request.hasPageSize() ? request.getPageSize() : PAGE;
          if (size < 1 || size > LARGEST_PAGE) {
            throw invalid(
                "page_size: expected 1 to %d, got %s"
                    .formatted(LARGEST_PAGE, Integer.toUnsignedString(size)));
          }
          String token = request.getPageToken();
          AdapterPage page = of(reply).page(token.isEmpty() ? null : decode(token), size);
          ListAdaptersResponse.Builder response =
              ListAdaptersResponse.newBuilder()
                  .setRevision(page.revision())
                  .setScanning(page.scanning())
                  .setNextPageToken(page.next() == null ? "" : encode(page.next()));
          page.entries().forEach(entry -> response.addAdapters(AdapterMessages.adapter(entry)));
          return response.build();
        });
  }

  /** A token is the last name of the page before: pages stay right whatever comes and goes. */
  private static String encode(String name) {
    return Base64.getUrlEncoder()
        .withoutPadding()
        .encodeToString(name.getBytes(StandardCharsets.UTF_8));
  }

  private static String decode(String token) throws AdapterException {
    try {
      return StandardCharsets.UTF_8
          .newDecoder()
          .decode(ByteBuffer.wrap(Base64.getUrlDecoder().decode(token)))
          .toString();
    } catch (IllegalArgumentException | CharacterCodingException e) {
      throw new AdapterException(
          Reason.INVALID,
          "page_token: expected the next_page_token of an answer, got something else; begin with"
              + " none",
          e);
    }
  }

  private void get(GetAdapterRequest request, long timeout, Reply<GetAdapterResponse> reply) {
    work(
        reply,
        () ->
            GetAdapterResponse.newBuilder()
                .setAdapter(AdapterMessages.adapter(of(reply).get(request.getName())))
                .build());
  }

  private void scan(ScanAdaptersRequest request, long timeout, Reply<ScanAdaptersResponse> reply) {
    reply(
        reply,
        of(reply).scan(),
        result ->
            ScanAdaptersResponse.newBuilder()
                .setAdapters(result.adapters())
                .setBroken(result.broken())
                .setScanMs(result.nanos() / 1e6)
                .build());
  }

  private PublishCall publish(Runnable next, Reply<PublishAdapterResponse> reply) {
    PublishCall call = new PublishCall(of(reply), workers, next, reply, publications::remove);
    publications.add(call);
    return call;
  }

  private void versions(
      ListVersionsRequest request, long timeout, Reply<ListVersionsResponse> reply) {
    work(
        reply,
        () -> {
          Release release = of(reply).release(request.getName());
          ListVersionsResponse.Builder response = ListVersionsResponse.newBuilder();
          for (AdapterEntry version : of(reply).versions(release)) {
            response.addVersions(AdapterMessages.adapter(version));
          }
          for (Release.Alias alias : release.aliases()) {
            response.addAliases(AdapterMessages.alias(release, alias));
          }
          return response.build();
        });
  }

  private void setAlias(SetAliasRequest request, long timeout, Reply<SetAliasResponse> reply) {
    work(
        reply,
        () -> {
          List<Catalog.Share> shares = new ArrayList<>();
          for (Share share : request.getSharesList()) {
            shares.add(
                new Catalog.Share(version(share), share.hasWeight() ? share.getWeight() : 1));
          }
          Release release =
              of(reply)
                  .setAlias(
                      request.getName(),
                      request.getAlias(),
                      shares,
                      request.hasShadow() ? shadow(request.getShadow()) : null);
          return SetAliasResponse.newBuilder().setAlias(alias(release, request.getAlias())).build();
        });
  }

  /** The version's label, or its digest. */
  private static String version(Share share) {
    return share.getVersion().isEmpty() ? share.getDigest() : share.getVersion();
  }

  private static Catalog.Shadow shadow(Shadow shadow) throws AdapterException {
    try {
      return new Catalog.Shadow(
          shadow.getVersion().isEmpty() ? shadow.getDigest() : shadow.getVersion(),
          shadow.hasFraction() ? shadow.getFraction() : 1);
    } catch (IllegalArgumentException e) {
      throw invalid(e.getMessage() == null ? e.toString() : e.getMessage());
    }
  }

  private static AdapterException invalid(String message) {
    return new AdapterException(Reason.INVALID, message);
  }

  private static Alias alias(Release release, String alias) {
    return AdapterMessages.alias(release, release.alias(alias));
  }

  private void rollback(
      RollbackAliasRequest request, long timeout, Reply<RollbackAliasResponse> reply) {
    work(
        reply,
        () -> {
          Release release = of(reply).rollback(request.getName(), request.getAlias());
          return RollbackAliasResponse.newBuilder()
              .setAlias(alias(release, request.getAlias()))
              .build();
        });
  }

  private void deleteAlias(
      DeleteAliasRequest request, long timeout, Reply<DeleteAliasResponse> reply) {
    work(
        reply,
        () -> {
          of(reply).deleteAlias(request.getName(), request.getAlias());
          return DeleteAliasResponse.getDefaultInstance();
        });
  }

  private void deleteVersion(
      DeleteVersionRequest request, long timeout, Reply<DeleteVersionResponse> reply) {
    work(
        reply,
        () -> {
          Unloaded gone =
              of(reply).deleteVersion(request.getName(), request.getVersion(), request.getForce());
          return DeleteVersionResponse.newBuilder()
              .setDigest(gone.digest())
              .setInUse(gone.inUse())
              .addAllAliases(gone.aliases())
              .build();
        });
  }

  private void pin(PinAdapterRequest request, long timeout, Reply<PinAdapterResponse> reply) {
    reply(
        reply,
        of(reply).pin(request.getName()),
        entry ->
            PinAdapterResponse.newBuilder().setAdapter(AdapterMessages.adapter(entry)).build());
  }

  private void unpin(UnpinAdapterRequest request, long timeout, Reply<UnpinAdapterResponse> reply) {
    work(
        reply,
        () ->
            UnpinAdapterResponse.newBuilder()
                .setAdapter(AdapterMessages.adapter(of(reply).unpin(request.getName())))
                .build());
  }

  private void watch(WatchAdaptersRequest request, long timeout, Reply<AdapterEvent> reply) {
    try {
      WatchCall call =
          new WatchCall(
              of(reply),
              request.hasAfterRevision()
                  ? OptionalLong.of(request.getAfterRevision())
                  : OptionalLong.empty(),
              reply,
              watches::remove);
      watches.add(call);
      call.begin();
    } catch (AdapterException e) {
      reply.fail(e);
    }
  }
}
