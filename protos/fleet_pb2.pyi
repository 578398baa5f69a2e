from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Fault(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FAULT_UNSPECIFIED: _ClassVar[Fault]
    FAULT_PROTOCOL: _ClassVar[Fault]
    FAULT_NOT_ENROLLED: _ClassVar[Fault]
    FAULT_INCAPABLE: _ClassVar[Fault]
    FAULT_UNKNOWN_TICKET: _ClassVar[Fault]
    FAULT_STALE_ROUND: _ClassVar[Fault]
    FAULT_WRONG_MODEL: _ClassVar[Fault]
    FAULT_UPDATE_TOO_LARGE: _ClassVar[Fault]
    FAULT_MALFORMED: _ClassVar[Fault]
    FAULT_UNKNOWN_BLOB: _ClassVar[Fault]
    FAULT_BAD_OFFSET: _ClassVar[Fault]
    FAULT_BUSY: _ClassVar[Fault]
    FAULT_NO_RELEASE: _ClassVar[Fault]
    FAULT_WRONG_MEMORY: _ClassVar[Fault]

class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    KIND_WEIGHT: _ClassVar[Kind]
    KIND_STATISTIC: _ClassVar[Kind]
    KIND_FROZEN: _ClassVar[Kind]

class Work(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WORK_UNSPECIFIED: _ClassVar[Work]
    WORK_TRAIN: _ClassVar[Work]
    WORK_EVALUATE: _ClassVar[Work]
FAULT_UNSPECIFIED: Fault
FAULT_PROTOCOL: Fault
FAULT_NOT_ENROLLED: Fault
FAULT_INCAPABLE: Fault
FAULT_UNKNOWN_TICKET: Fault
FAULT_STALE_ROUND: Fault
FAULT_WRONG_MODEL: Fault
FAULT_UPDATE_TOO_LARGE: Fault
FAULT_MALFORMED: Fault
FAULT_UNKNOWN_BLOB: Fault
FAULT_BAD_OFFSET: Fault
FAULT_BUSY: Fault
FAULT_NO_RELEASE: Fault
FAULT_WRONG_MEMORY: Fault
KIND_WEIGHT: Kind
KIND_STATISTIC: Kind
KIND_FROZEN: Kind
WORK_UNSPECIFIED: Work
WORK_TRAIN: Work
WORK_EVALUATE: Work

class TensorInfo(_message.Message):
    __slots__ = ("name", "shape", "dtype", "of", "start", "kind")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    OF_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    name: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    dtype: str
    of: str
    start: int
    kind: Kind
    def __init__(self, name: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., dtype: _Optional[str] = ..., of: _Optional[str] = ..., start: _Optional[int] = ..., kind: _Optional[_Union[Kind, str]] = ...) -> None: ...

class Capabilities(_message.Message):
    __slots__ = ("codecs", "trainers", "memory_bytes", "cores", "device_class", "link", "condition")
    CODECS_FIELD_NUMBER: _ClassVar[int]
    TRAINERS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    CORES_FIELD_NUMBER: _ClassVar[int]
    DEVICE_CLASS_FIELD_NUMBER: _ClassVar[int]
    LINK_FIELD_NUMBER: _ClassVar[int]
    CONDITION_FIELD_NUMBER: _ClassVar[int]
    codecs: _containers.RepeatedScalarFieldContainer[str]
    trainers: _containers.RepeatedScalarFieldContainer[str]
    memory_bytes: int
    cores: int
    device_class: str
    link: LinkRates
    condition: Condition
    def __init__(self, codecs: _Optional[_Iterable[str]] = ..., trainers: _Optional[_Iterable[str]] = ..., memory_bytes: _Optional[int] = ..., cores: _Optional[int] = ..., device_class: _Optional[str] = ..., link: _Optional[_Union[LinkRates, _Mapping]] = ..., condition: _Optional[_Union[Condition, _Mapping]] = ...) -> None: ...

class Condition(_message.Message):
    __slots__ = ("charging", "unmetered", "busy")
    CHARGING_FIELD_NUMBER: _ClassVar[int]
    UNMETERED_FIELD_NUMBER: _ClassVar[int]
    BUSY_FIELD_NUMBER: _ClassVar[int]
    charging: bool
    unmetered: bool
    busy: bool
    def __init__(self, charging: _Optional[bool] = ..., unmetered: _Optional[bool] = ..., busy: _Optional[bool] = ...) -> None: ...

class LinkRates(_message.Message):
    __slots__ = ("up", "down")
    UP_FIELD_NUMBER: _ClassVar[int]
    DOWN_FIELD_NUMBER: _ClassVar[int]
    up: float
    down: float
    def __init__(self, up: _Optional[float] = ..., down: _Optional[float] = ...) -> None: ...

class EnrolRequest(_message.Message):
    __slots__ = ("protocol", "name", "key", "capabilities", "task", "spec_hash", "kinds")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    SPEC_HASH_FIELD_NUMBER: _ClassVar[int]
    KINDS_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    name: str
    key: bytes
    capabilities: Capabilities
    task: str
    spec_hash: bytes
    kinds: _containers.RepeatedScalarFieldContainer[Kind]
    def __init__(self, protocol: _Optional[int] = ..., name: _Optional[str] = ..., key: _Optional[bytes] = ..., capabilities: _Optional[_Union[Capabilities, _Mapping]] = ..., task: _Optional[str] = ..., spec_hash: _Optional[bytes] = ..., kinds: _Optional[_Iterable[_Union[Kind, str]]] = ...) -> None: ...

class EnrolReply(_message.Message):
    __slots__ = ("client_id", "key", "run_id", "task", "spec", "long_poll_seconds", "chunk_bytes", "seed", "protocol")
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    LONG_POLL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    CHUNK_BYTES_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    client_id: str
    key: bytes
    run_id: str
    task: str
    spec: _containers.RepeatedCompositeFieldContainer[TensorInfo]
    long_poll_seconds: float
    chunk_bytes: int
    seed: int
    protocol: int
    def __init__(self, client_id: _Optional[str] = ..., key: _Optional[bytes] = ..., run_id: _Optional[str] = ..., task: _Optional[str] = ..., spec: _Optional[_Iterable[_Union[TensorInfo, _Mapping]]] = ..., long_poll_seconds: _Optional[float] = ..., chunk_bytes: _Optional[int] = ..., seed: _Optional[int] = ..., protocol: _Optional[int] = ...) -> None: ...

class WorkRequest(_message.Message):
    __slots__ = ("held", "link", "wait_seconds", "condition")
    HELD_FIELD_NUMBER: _ClassVar[int]
    LINK_FIELD_NUMBER: _ClassVar[int]
    WAIT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    CONDITION_FIELD_NUMBER: _ClassVar[int]
    held: bytes
    link: LinkRates
    wait_seconds: float
    condition: Condition
    def __init__(self, held: _Optional[bytes] = ..., link: _Optional[_Union[LinkRates, _Mapping]] = ..., wait_seconds: _Optional[float] = ..., condition: _Optional[_Union[Condition, _Mapping]] = ...) -> None: ...

class WorkReply(_message.Message):
    __slots__ = ("ticket", "wait", "finished")
    TICKET_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    ticket: Ticket
    wait: Wait
    finished: Finished
    def __init__(self, ticket: _Optional[_Union[Ticket, _Mapping]] = ..., wait: _Optional[_Union[Wait, _Mapping]] = ..., finished: _Optional[_Union[Finished, _Mapping]] = ...) -> None: ...

class Wait(_message.Message):
    __slots__ = ("seconds", "reason")
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    seconds: float
    reason: str
    def __init__(self, seconds: _Optional[float] = ..., reason: _Optional[str] = ...) -> None: ...

class Finished(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class Blob(_message.Message):
    __slots__ = ("hash", "size", "codec", "full", "step", "data")
    HASH_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    FULL_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    hash: bytes
    size: int
    codec: str
    full: bool
    step: bool
    data: bytes
    def __init__(self, hash: _Optional[bytes] = ..., size: _Optional[int] = ..., codec: _Optional[str] = ..., full: _Optional[bool] = ..., step: _Optional[bool] = ..., data: _Optional[bytes] = ...) -> None: ...

class Training(_message.Message):
    __slots__ = ("epochs", "max_steps", "batch_size", "optimizer", "lr", "momentum", "weight_decay", "max_grad_norm")
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    MAX_STEPS_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZER_FIELD_NUMBER: _ClassVar[int]
    LR_FIELD_NUMBER: _ClassVar[int]
    MOMENTUM_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_DECAY_FIELD_NUMBER: _ClassVar[int]
    MAX_GRAD_NORM_FIELD_NUMBER: _ClassVar[int]
    epochs: int
    max_steps: int
    batch_size: int
    optimizer: str
    lr: float
    momentum: float
    weight_decay: float
    max_grad_norm: float
    def __init__(self, epochs: _Optional[int] = ..., max_steps: _Optional[int] = ..., batch_size: _Optional[int] = ..., optimizer: _Optional[str] = ..., lr: _Optional[float] = ..., momentum: _Optional[float] = ..., weight_decay: _Optional[float] = ..., max_grad_norm: _Optional[float] = ...) -> None: ...

class Rule(_message.Message):
    __slots__ = ("name", "personal", "options")
    class OptionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    PERSONAL_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    name: str
    personal: _containers.RepeatedScalarFieldContainer[str]
    options: _containers.ScalarMap[str, float]
    def __init__(self, name: _Optional[str] = ..., personal: _Optional[_Iterable[str]] = ..., options: _Optional[_Mapping[str, float]] = ...) -> None: ...

class LocalPrivacy(_message.Message):
    __slots__ = ("noise_multiplier", "clip_norm", "delta", "max_epsilon", "clipping", "target_epsilon", "rounds", "passes", "evaluations")
    NOISE_MULTIPLIER_FIELD_NUMBER: _ClassVar[int]
    CLIP_NORM_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    MAX_EPSILON_FIELD_NUMBER: _ClassVar[int]
    CLIPPING_FIELD_NUMBER: _ClassVar[int]
    TARGET_EPSILON_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    PASSES_FIELD_NUMBER: _ClassVar[int]
    EVALUATIONS_FIELD_NUMBER: _ClassVar[int]
    noise_multiplier: float
    clip_norm: float
    delta: float
    max_epsilon: float
    clipping: str
    target_epsilon: float
    rounds: int
    passes: int
    evaluations: int
    def __init__(self, noise_multiplier: _Optional[float] = ..., clip_norm: _Optional[float] = ..., delta: _Optional[float] = ..., max_epsilon: _Optional[float] = ..., clipping: _Optional[str] = ..., target_epsilon: _Optional[float] = ..., rounds: _Optional[int] = ..., passes: _Optional[int] = ..., evaluations: _Optional[int] = ...) -> None: ...

class Ticket(_message.Message):
    __slots__ = ("id", "work", "round", "model", "recipe", "upload_codec", "seed", "seconds_left", "max_update_bytes", "training", "rule", "privacy", "evaluate")
    ID_FIELD_NUMBER: _ClassVar[int]
    WORK_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_CODEC_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    SECONDS_LEFT_FIELD_NUMBER: _ClassVar[int]
    MAX_UPDATE_BYTES_FIELD_NUMBER: _ClassVar[int]
    TRAINING_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    PRIVACY_FIELD_NUMBER: _ClassVar[int]
    EVALUATE_FIELD_NUMBER: _ClassVar[int]
    id: bytes
    work: Work
    round: int
    model: bytes
    recipe: _containers.RepeatedCompositeFieldContainer[Blob]
    upload_codec: str
    seed: int
    seconds_left: float
    max_update_bytes: int
    training: Training
    rule: Rule
    privacy: LocalPrivacy
    evaluate: bool
    def __init__(self, id: _Optional[bytes] = ..., work: _Optional[_Union[Work, str]] = ..., round: _Optional[int] = ..., model: _Optional[bytes] = ..., recipe: _Optional[_Iterable[_Union[Blob, _Mapping]]] = ..., upload_codec: _Optional[str] = ..., seed: _Optional[int] = ..., seconds_left: _Optional[float] = ..., max_update_bytes: _Optional[int] = ..., training: _Optional[_Union[Training, _Mapping]] = ..., rule: _Optional[_Union[Rule, _Mapping]] = ..., privacy: _Optional[_Union[LocalPrivacy, _Mapping]] = ..., evaluate: _Optional[bool] = ...) -> None: ...

class FetchRequest(_message.Message):
    __slots__ = ("hash", "offset")
    HASH_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    hash: bytes
    offset: int
    def __init__(self, hash: _Optional[bytes] = ..., offset: _Optional[int] = ...) -> None: ...

class Chunk(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class OffsetRequest(_message.Message):
    __slots__ = ("ticket",)
    TICKET_FIELD_NUMBER: _ClassVar[int]
    ticket: bytes
    def __init__(self, ticket: _Optional[bytes] = ...) -> None: ...

class OffsetReply(_message.Message):
    __slots__ = ("offset", "acknowledged")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGED_FIELD_NUMBER: _ClassVar[int]
    offset: int
    acknowledged: bool
    def __init__(self, offset: _Optional[int] = ..., acknowledged: _Optional[bool] = ...) -> None: ...

class Report(_message.Message):
    __slots__ = ("examples", "steps", "loss", "train_seconds", "encode_seconds", "epsilon", "held_out", "accuracy", "held_out_loss", "others", "facts", "given", "lost")
    class OthersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class FactsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    TRAIN_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ENCODE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    EPSILON_FIELD_NUMBER: _ClassVar[int]
    HELD_OUT_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_FIELD_NUMBER: _ClassVar[int]
    HELD_OUT_LOSS_FIELD_NUMBER: _ClassVar[int]
    OTHERS_FIELD_NUMBER: _ClassVar[int]
    FACTS_FIELD_NUMBER: _ClassVar[int]
    GIVEN_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    examples: int
    steps: int
    loss: float
    train_seconds: float
    encode_seconds: float
    epsilon: float
    held_out: int
    accuracy: float
    held_out_loss: float
    others: _containers.ScalarMap[str, float]
    facts: _containers.ScalarMap[str, float]
    given: float
    lost: float
    def __init__(self, examples: _Optional[int] = ..., steps: _Optional[int] = ..., loss: _Optional[float] = ..., train_seconds: _Optional[float] = ..., encode_seconds: _Optional[float] = ..., epsilon: _Optional[float] = ..., held_out: _Optional[int] = ..., accuracy: _Optional[float] = ..., held_out_loss: _Optional[float] = ..., others: _Optional[_Mapping[str, float]] = ..., facts: _Optional[_Mapping[str, float]] = ..., given: _Optional[float] = ..., lost: _Optional[float] = ...) -> None: ...

class PushHeader(_message.Message):
    __slots__ = ("ticket", "base", "size", "checksum", "offset", "report", "memory")
    TICKET_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    ticket: bytes
    base: bytes
    size: int
    checksum: bytes
    offset: int
    report: Report
    memory: int
    def __init__(self, ticket: _Optional[bytes] = ..., base: _Optional[bytes] = ..., size: _Optional[int] = ..., checksum: _Optional[bytes] = ..., offset: _Optional[int] = ..., report: _Optional[_Union[Report, _Mapping]] = ..., memory: _Optional[int] = ...) -> None: ...

class PushPart(_message.Message):
    __slots__ = ("header", "data")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    header: PushHeader
    data: bytes
    def __init__(self, header: _Optional[_Union[PushHeader, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class PushReply(_message.Message):
    __slots__ = ("duplicate",)
    DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    duplicate: bool
    def __init__(self, duplicate: _Optional[bool] = ...) -> None: ...

class DeclineRequest(_message.Message):
    __slots__ = ("ticket", "reason")
    TICKET_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ticket: bytes
    reason: str
    def __init__(self, ticket: _Optional[bytes] = ..., reason: _Optional[str] = ...) -> None: ...

class DeclineReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReleaseRequest(_message.Message):
    __slots__ = ("device_class",)
    DEVICE_CLASS_FIELD_NUMBER: _ClassVar[int]
    device_class: str
    def __init__(self, device_class: _Optional[str] = ...) -> None: ...

class Release(_message.Message):
    __slots__ = ("hash", "size", "format", "device_class", "metrics")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    HASH_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    DEVICE_CLASS_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    hash: bytes
    size: int
    format: str
    device_class: str
    metrics: _containers.ScalarMap[str, float]
    def __init__(self, hash: _Optional[bytes] = ..., size: _Optional[int] = ..., format: _Optional[str] = ..., device_class: _Optional[str] = ..., metrics: _Optional[_Mapping[str, float]] = ...) -> None: ...
