package dev.wardrobe.grpc;

import dev.wardrobe.adapter.AdapterEntry;
import dev.wardrobe.adapter.AdapterException;
import dev.wardrobe.adapter.AdapterRegistry;
import dev.wardrobe.adapter.Unloaded;
import dev.wardrobe.v1.Adapter;
import dev.wardrobe.v1.AdapterProto;
import dev.wardrobe.v1.GetAdapterRequest;
import dev.wardrobe.v1.GetAdapterResponse;
import dev.wardrobe.v1.ListAdaptersRequest;
import dev.wardrobe.v1.ListAdaptersResponse;
import dev.wardrobe.v1.LoadAdapterRequest;
import dev.wardrobe.v1.LoadAdapterResponse;
import dev.wardrobe.v1.UnloadAdapterRequest;
import dev.wardrobe.v1.UnloadAdapterResponse;
import io.vertx.grpc.server.Service;

/** {@code wardrobe.v1.AdapterService} over an {@link AdapterRegistry}. */
final class AdapterCalls {
  private final AdapterRegistry adapters;

  AdapterCalls(AdapterRegistry adapters) {
    this.adapters = adapters;
  }

  Service service() {
    return new Methods(AdapterProto.getDescriptor().findServiceByName("AdapterService"))
        .with("LoadAdapter", LoadAdapterRequest.getDefaultInstance(), this::load)
        .with("UnloadAdapter", UnloadAdapterRequest.getDefaultInstance(), this::unload)
        .with("ListAdapters", ListAdaptersRequest.getDefaultInstance(), this::list)
        .with("GetAdapter", GetAdapterRequest.getDefaultInstance(), this::get);
  }

  private void load(LoadAdapterRequest request, long timeout, Reply<LoadAdapterResponse> reply) {
    long began = System.nanoTime();
    var _ =
        adapters
            .load(request.getName(), request.hasPath() ? request.getPath() : null)
            .whenComplete(
                (entry, failure) -> {
                  if (failure != null) {
                    reply.fail(failure);
                  } else {
                    reply.end(
                        LoadAdapterResponse.newBuilder()
                            .setAdapter(message(entry))
                            .setLoadMs((System.nanoTime() - began) / 1e6)
                            .build());
                  }
                });
  }

  private void unload(
      UnloadAdapterRequest request, long timeout, Reply<UnloadAdapterResponse> reply) {
    try {
      Unloaded unloaded = adapters.unload(request.getName());
      reply.end(
          UnloadAdapterResponse.newBuilder()
              .setDigest(unloaded.digest())
              .setInUse(unloaded.inUse())
              .build());
    } catch (AdapterException e) {
      reply.fail(e);
    }
  }

  private void list(ListAdaptersRequest request, long timeout, Reply<ListAdaptersResponse> reply) {
    ListAdaptersResponse.Builder response = ListAdaptersResponse.newBuilder();
    adapters.list().forEach(entry -> response.addAdapters(message(entry)));
    reply.end(response.build());
  }

  private void get(GetAdapterRequest request, long timeout, Reply<GetAdapterResponse> reply) {
    try {
      reply.end(
          GetAdapterResponse.newBuilder()
              .setAdapter(message(adapters.get(request.getName())))
              .build());
    } catch (AdapterException e) {
      reply.fail(e);
    }
  }

  private static Adapter message(AdapterEntry entry) {
    return Adapter.newBuilder()
        .setName(entry.name())
        .setDigest(entry.digest())
        .setKind(entry.kind())
        .setRank(entry.rank())
        .setModules(entry.modules())
        .setParameters(entry.parameters())
        .setBytes(entry.bytes())
        .setResident(entry.resident())
        .setInUse(entry.inUse())
        .setRequests(entry.requests())
        .addAllWarnings(entry.warnings())
        .build();
  }
}
