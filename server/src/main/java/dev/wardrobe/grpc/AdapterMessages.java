package dev.wardrobe.grpc;

import com.google.protobuf.Timestamp;
import dev.wardrobe.adapter.AdapterEntry;
import dev.wardrobe.adapter.Catalog;
import dev.wardrobe.adapter.Published;
import dev.wardrobe.adapter.RegistryEvent;
import dev.wardrobe.adapter.Release;
import dev.wardrobe.adapter.ShadowTraffic;
import dev.wardrobe.v1.Adapter;
import dev.wardrobe.v1.AdapterEvent;
import dev.wardrobe.v1.Alias;
import dev.wardrobe.v1.PublishAdapterResponse;
import dev.wardrobe.v1.Shadow;
import dev.wardrobe.v1.Share;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import org.jspecify.annotations.Nullable;

/** What a registry says, as messages. */
public final class AdapterMessages {
  private AdapterMessages() {}

  static Adapter adapter(AdapterEntry entry) {
    Adapter.Builder adapter =
        Adapter.newBuilder()
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
            .setSource(entry.source().name().toLowerCase(Locale.ROOT))
            .addAllAliases(entry.aliases())
            .setPinned(entry.pinned())
            .setProblem(entry.problem())
            .setPlace(Adapter.Place.valueOf("PLACE_" + entry.place().name()))
            .setFirstTokenMs(entry.firstTokenMillis());
    Instant published = entry.published();
    if (published != null) {
      adapter.setPublished(time(published));
    }
    return adapter.build();
  }

  static Alias alias(Release release, Release.Alias alias) {
    Catalog.Setting current = alias.alias().current();
    Alias.Builder message =
        Alias.newBuilder()
            .setName(alias.name())
            .setAlias(alias.alias().label())
            .addAllShares(shares(release, current, alias.answered()))
            .setChanged(time(current.time()));
    Shadow shadow = shadow(release, current, alias.shadow());
    if (shadow != null) {
      message.setShadow(shadow);
    }
    for (Catalog.Setting past : alias.alias().earlier().reversed()) {
      Alias.Past.Builder earlier =
          Alias.Past.newBuilder()
              .addAllShares(shares(release, past, List.of()))
              .setChanged(time(past.time()));
      Shadow before = shadow(release, past, null);
      if (before != null) {
        earlier.setShadow(before);
      }
      message.addHistory(earlier);
    }
    return message.build();
  }

  private static List<Share> shares(Release release, Catalog.Setting setting, List<Long> answered) {
    List<Share> shares = new ArrayList<>();
    for (Catalog.Share share : setting.target().shares()) {
      Share.Builder message =
          Share.newBuilder()
              .setVersion(release.version(share.digest()))
              .setWeight(share.weight())
              .setDigest(share.digest());
      if (!answered.isEmpty()) {
        message.setRequests(answered.get(shares.size()));
      }
      shares.add(message.build());
    }
    return shares;
  }

  private static @Nullable Shadow shadow(
      Release release, Catalog.Setting setting, ShadowTraffic.@Nullable Counts counts) {
    Catalog.Shadow shadow = setting.shadow();
    if (shadow == null) {
      return null;
    }
    Shadow.Builder message =
        Shadow.newBuilder()
            .setVersion(release.version(shadow.digest()))
            .setFraction((float) shadow.fraction())
            .setDigest(shadow.digest());
    if (counts != null) {
      message.setTraffic(
          dev.wardrobe.v1.ShadowTraffic.newBuilder()
              .setRequests(counts.requests())
              .setCompleted(counts.completed())
              .setDropped(counts.dropped())
              .setFailed(counts.failed())
              .setTokens(counts.tokens())
              .setTokensAgreed(counts.agreed())
              .setIdentical(counts.identical())
              .setFirstTokenMs(counts.candidate().firstTokenMillis())
              .setTotalMs(counts.candidate().totalMillis())
              .setRealFirstTokenMs(counts.real().firstTokenMillis())
              .setRealTotalMs(counts.real().totalMillis()));
    }
    return message.build();
  }

  /**
   * The answer to a publication.
   *
   * @param millis from its beginning to its end
   */
  public static PublishAdapterResponse published(Published published, double millis) {
    return PublishAdapterResponse.newBuilder()
        .setAdapter(adapter(published.adapter()))
        .setVersion(published.version())
        .setExisted(published.existed())
        .setPublishMs(millis)
        .build();
  }

  public static AdapterEvent event(RegistryEvent event) {
    return AdapterEvent.newBuilder()
        .setRevision(event.revision())
        .setTime(time(Instant.ofEpochMilli(event.millis())))
        .setKind(AdapterEvent.Kind.valueOf("KIND_" + event.kind().name()))
        .setName(event.name())
        .setDigest(event.digest())
        .setAlias(event.alias())
        .setDetail(event.detail())
        .build();
  }

  private static Timestamp time(Instant time) {
    return Timestamp.newBuilder()
        .setSeconds(time.getEpochSecond())
        .setNanos(time.getNano())
        .build();
  }
}
